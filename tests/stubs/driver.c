/* Fake NVIDIA driver for tests: one shared object under the names of libcuda, libnvcuvid, libnvidia-encode, libnvidia-ml
 * and libnvrtc, so that GStreamer's real nvcodec plug-in registers its elements for GPUs that do not exist and runs them.
 *
 * It proves the glue: names, properties, caps, contexts, sessions, failures. It proves nothing of coding: the decoder's
 * pictures are flat, the scaler does nothing, and the encoder writes a grey IDR picture and P pictures without content.
 *
 *   FISHLADDER_STUB_GPUS    GPUs, by commas, each KIND[:sessions=N][:hot]. KIND `full` decodes and encodes, `no-nvenc` only
 *                           decodes. N: encoder sessions of a process that are still free; all others are taken. `hot`:
 *                           NVML says that it runs at half its speed because of its temperature.
 *   FISHLADDER_STUB_DRIVER  the driver's version (580.95.05); from 590 on NVENC's old presets are gone.
 *   FISHLADDER_STUB_LOSE    after so many encoded pictures of a process the GPU is lost to it: every call fails.
 *   FISHLADDER_STUB_LOG     a file: a line for each context, session, encoder, decoder and refusal, with the GPU's number.
 *
 * Layouts are those of CUDA 12's and the Video Codec SDK 12's public headers, which the SDK 11 that GStreamer 1.22 was
 * built against shares in every field named here. Only what GStreamer reads or writes is here, as offsets or as structs cut
 * off behind the last field; the plug-in was seen to call nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_GPUS 8
/* What a GPU has where `sessions` is not said; NVML shows the difference as taken. */
#define ALL_SESSIONS 64

enum { CUDA_OK = 0, CUDA_INVALID = 1, CUDA_OUT_OF_MEMORY = 2, CUDA_NO_DEVICE = 100, CUDA_BAD_DEVICE = 101, CUDA_LAUNCH_FAILED = 719 };
enum { ENC_OK = 0, ENC_UNSUPPORTED_DEVICE = 2, ENC_INVALID_DEVICE = 4, ENC_INVALID_PARAM = 8, ENC_OUT_OF_MEMORY = 10,
       ENC_UNSUPPORTED_PARAM = 12, ENC_GENERIC = 20, ENC_TOO_MANY_SESSIONS = 21 };

struct gpu {
  int number; /* Of all, counted from 0 whatever is visible. */
  int nvenc;
  int free_sessions;
  int open_sessions;
  int hot;
};

struct context {
  struct gpu *gpu;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct gpu gpus[MAX_GPUS];
static int gpu_count;
/* The visible ones by CUDA ordinal. */
static struct gpu *visible[MAX_GPUS];
static int visible_count;
/* Each thread's stack of contexts. */
static __thread struct context *stack[16];
static __thread int depth;

static int pictures_left = -1; /* Until the GPU is lost; below 0: never. */
static int lost(void) { return __atomic_load_n(&pictures_left, __ATOMIC_RELAXED) == 0; }

static void note(const char *format, ...) {
  const char *path = getenv("FISHLADDER_STUB_LOG");
  if (!path) return;
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (n < 0 || n > (int)sizeof line - 2) n = sizeof line - 2;
  line[n++] = '\n';
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return;
  if (write(file, line, n) != n) perror("FISHLADDER_STUB_LOG");
  close(file);
}

static void uuid_text(const struct gpu *gpu, char *text, size_t size) {
  snprintf(text, size, "GPU-f15b1add-0000-4000-8000-00000000000%x", gpu->number);
}

static const char *gpu_name(const struct gpu *gpu) { return gpu->nvenc ? "NVIDIA L4" : "NVIDIA H100 PCIe"; }

static const char *driver_version(void) {
  const char *version = getenv("FISHLADDER_STUB_DRIVER");
  return version ? version : "580.95.05";
}

static struct gpu *named(const char *word) {
  char *end;
  long ordinal = strtol(word, &end, 10);
  if (end != word && !*end) return ordinal >= 0 && ordinal < gpu_count ? &gpus[ordinal] : NULL;
  for (int i = 0; i < gpu_count; i++) {
    char text[48];
    uuid_text(&gpus[i], text, sizeof text);
    if (strlen(word) > 4 && strncmp(text, word, strlen(word)) == 0) return &gpus[i];
  }
  return NULL;
}

__attribute__((constructor)) static void read_environment(void) {
  const char *given = getenv("FISHLADDER_STUB_GPUS"), *lose = getenv("FISHLADDER_STUB_LOSE");
  if (lose) pictures_left = atoi(lose);
  char words[256];
  snprintf(words, sizeof words, "%s", given ? given : "");
  char *rest = words;
  for (char *word; (word = strsep(&rest, ",")) && gpu_count < MAX_GPUS;) {
    if (!*word) continue;
    char *hot = strstr(word, ":hot");
    if (hot) *hot = 0;
    char *sessions = strstr(word, ":sessions=");
    if (sessions) *sessions = 0;
    if (strcmp(word, "full") && strcmp(word, "no-nvenc")) {
      fprintf(stderr, "FISHLADDER_STUB_GPUS: no GPU is called %s\n", word);
      abort();
    }
    struct gpu gpu = {gpu_count, !strcmp(word, "full"), sessions ? atoi(sessions + 10) : ALL_SESSIONS, 0, hot != NULL};
    gpus[gpu_count++] = gpu;
  }
  const char *hidden = getenv("CUDA_VISIBLE_DEVICES");
  if (!hidden) {
    for (; visible_count < gpu_count; visible_count++) visible[visible_count] = &gpus[visible_count];
    return;
  }
  snprintf(words, sizeof words, "%s", hidden);
  rest = words;
  /* As CUDA does: what stands behind a word that names no GPU is not seen. */
  for (char *word; (word = strsep(&rest, ",")) && visible_count < MAX_GPUS;) {
    struct gpu *gpu = named(word);
    if (!gpu) break;
    visible[visible_count++] = gpu;
  }
}

/* ---- libcuda ---- */

typedef int CUresult;

CUresult cuInit(unsigned flags) { return flags ? CUDA_INVALID : visible_count ? CUDA_OK : CUDA_NO_DEVICE; }
CUresult cuDriverGetVersion(int *version) { *version = 12080; return CUDA_OK; }
CUresult cuGetErrorName(CUresult error, const char **text) { *text = error ? "CUDA_ERROR_OF_STUB" : "CUDA_SUCCESS"; return CUDA_OK; }
CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }
CUresult cuDeviceGetCount(int *count) { *count = visible_count; return CUDA_OK; }
CUresult cuDeviceGet(int *device, int ordinal) {
  if (ordinal < 0 || ordinal >= visible_count) return CUDA_BAD_DEVICE;
  *device = ordinal;
  return CUDA_OK;
}
CUresult cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "%s", gpu_name(visible[device])); return CUDA_OK; }
CUresult cuDeviceGetPCIBusId(char *id, int length, int device) {
  snprintf(id, length, "0000:%02X:00.0", visible[device]->number + 1);
  return CUDA_OK;
}
CUresult cuDeviceGetUuid(unsigned char *uuid, int device) {
  static const unsigned char bytes[16] = {0xf1, 0x5b, 0x1a, 0xdd, 0, 0, 0x40, 0, 0x80};
  memcpy(uuid, bytes, 16);
  uuid[15] = visible[device]->number;
  return CUDA_OK;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  /* Texture alignment; compute capability 8.9. What else is asked for are abilities: none. */
  *value = attribute == 14 ? 512 : attribute == 75 ? 8 : attribute == 76 ? 9 : 0;
  return CUDA_OK;
}
CUresult cuDeviceCanAccessPeer(int *can, int device, int other) { (void)device; (void)other; *can = 0; return CUDA_OK; }

CUresult cuCtxPushCurrent_v2(struct context *context) {
  if (!context || depth == 16) return CUDA_INVALID;
  stack[depth++] = context;
  return CUDA_OK;
}
CUresult cuCtxPopCurrent_v2(struct context **context) {
  if (!depth) return CUDA_INVALID;
  depth--;
  if (context) *context = stack[depth];
  return CUDA_OK;
}
CUresult cuCtxCreate_v2(struct context **context, unsigned flags, int device) {
  (void)flags;
  if (device < 0 || device >= visible_count) return CUDA_BAD_DEVICE;
  *context = malloc(sizeof **context);
  if (!*context) return CUDA_OUT_OF_MEMORY;
  (*context)->gpu = visible[device];
  note("context %d created by %d", visible[device]->number, (int)getpid());
  return cuCtxPushCurrent_v2(*context);
}
CUresult cuCtxDestroy_v2(struct context *context) {
  note("context %d destroyed by %d", context->gpu->number, (int)getpid());
  if (depth && stack[depth - 1] == context) depth--;
  free(context);
  return CUDA_OK;
}

/* Device memory is the host's. */
CUresult cuMemAlloc_v2(uintptr_t *pointer, size_t size) {
  *pointer = (uintptr_t)calloc(1, size ? size : 1);
  return *pointer ? CUDA_OK : CUDA_OUT_OF_MEMORY;
}
CUresult cuMemAllocPitch_v2(uintptr_t *pointer, size_t *pitch, size_t width, size_t height, unsigned element) {
  (void)element;
  *pitch = (width + 511) / 512 * 512;
  return cuMemAlloc_v2(pointer, *pitch * height);
}
CUresult cuMemFree_v2(uintptr_t pointer) { free((void *)pointer); return CUDA_OK; }
CUresult cuMemAllocHost_v2(void **pointer, size_t size) { return cuMemAlloc_v2((uintptr_t *)pointer, size); }
CUresult cuMemFreeHost(void *pointer) { free(pointer); return CUDA_OK; }

struct place { size_t x, y; int type; int pad; void *host; uintptr_t device; void *array; size_t pitch; };
struct copy { struct place from, to; size_t width, height; };
/* A host pointer where the memory is the host's (1), a device pointer where it is the device's (2). */
static char *address(const struct place *place) {
  char *base = place->type == 1 ? place->host : place->type == 2 ? (char *)place->device : NULL;
  return base ? base + place->y * place->pitch + place->x : NULL;
}
CUresult cuMemcpy2D_v2(const struct copy *copy) {
  if (lost()) return CUDA_LAUNCH_FAILED;
  char *from = address(&copy->from), *to = address(&copy->to);
  if (!from || !to) return CUDA_INVALID;
  for (size_t row = 0; row < copy->height; row++)
    memcpy(to + row * copy->to.pitch, from + row * copy->from.pitch, copy->width);
  return CUDA_OK;
}
CUresult cuMemcpy2DAsync_v2(const struct copy *copy, void *stream) { (void)stream; return cuMemcpy2D_v2(copy); }

static CUresult handle(void **made) { static char one; *made = &one; return CUDA_OK; }
CUresult cuStreamCreate(void **stream, unsigned flags) { (void)flags; return handle(stream); }
CUresult cuModuleLoadData(void **module, const void *image) { (void)image; return handle(module); }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) { (void)module; (void)name; return handle(function); }
CUresult cuTexObjectCreate(void **texture) { return handle(texture); }
CUresult cuEventCreate(void **event) { return handle(event); }

/* Called, with nothing to do. */
#define NOTHING(name) CUresult name(void) { return CUDA_OK; }
NOTHING(cuStreamDestroy_v2) NOTHING(cuStreamSynchronize) NOTHING(cuModuleUnload) NOTHING(cuTexObjectDestroy)
NOTHING(cuLaunchKernel) NOTHING(cuCtxSynchronize) NOTHING(cuEventDestroy_v2) NOTHING(cuEventRecord)
NOTHING(cuEventSynchronize) NOTHING(cuMemsetD2D8_v2) NOTHING(cuMemsetD2D8Async) NOTHING(cuMemsetD2D16_v2)
NOTHING(cuMemsetD2D16Async) NOTHING(cuMemsetD2D32_v2) NOTHING(cuMemsetD2D32Async)
/* 1.22 resolves the name without a number. */
NOTHING(cuStreamDestroy)
/* Resolved when the plug-in starts, never called here: OpenGL, peers, other processes. */
#define REFUSED(name) CUresult name(void) { return CUDA_INVALID; }
REFUSED(cuCtxEnablePeerAccess) REFUSED(cuCtxDisablePeerAccess) REFUSED(cuCtxGetLimit) REFUSED(cuCtxSetLimit)
REFUSED(cuGraphicsMapResources) REFUSED(cuGraphicsUnmapResources) REFUSED(cuGraphicsResourceSetMapFlags_v2)
REFUSED(cuGraphicsSubResourceGetMappedArray) REFUSED(cuGraphicsResourceGetMappedPointer_v2)
REFUSED(cuGraphicsUnregisterResource) REFUSED(cuGraphicsGLRegisterImage) REFUSED(cuGraphicsGLRegisterBuffer)
REFUSED(cuGLGetDevices_v2) REFUSED(cuGraphicsEGLRegisterImage) REFUSED(cuGraphicsResourceGetMappedEglFrame)
REFUSED(cuMemcpyDtoD_v2) REFUSED(cuMemcpyDtoDAsync_v2) REFUSED(cuMemcpyDtoH_v2) REFUSED(cuMemcpyDtoHAsync_v2)
REFUSED(cuMemcpyHtoD_v2) REFUSED(cuMemcpyHtoDAsync_v2) REFUSED(cuIpcGetEventHandle) REFUSED(cuIpcOpenEventHandle)
REFUSED(cuIpcGetMemHandle) REFUSED(cuIpcOpenMemHandle_v2) REFUSED(cuIpcOpenMemHandle) REFUSED(cuIpcCloseMemHandle)

/* ---- libnvrtc: compiles nothing to nothing ---- */

int nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 8; return 0; }
int nvrtcCreateProgram(void **program) { return handle(program); }
int nvrtcGetPTXSize(void *program, size_t *size) { (void)program; *size = 1; return 0; }
int nvrtcGetPTX(void *program, char *ptx) { (void)program; *ptx = 0; return 0; }
int nvrtcGetProgramLogSize(void *program, size_t *size) { return nvrtcGetPTXSize(program, size); }
int nvrtcGetProgramLog(void *program, char *log) { return nvrtcGetPTX(program, log); }
NOTHING(nvrtcCompileProgram) NOTHING(nvrtcDestroyProgram)

/* ---- libnvcuvid ---- */

enum { CODEC_H264 = 4, CODEC_HEVC = 8, CODEC_VP9 = 10, CODEC_AV1 = 11, CHROMA_420 = 1 };

struct decoder_caps { int codec, chroma; unsigned depth, pad[3]; unsigned char supported, pad2[3]; unsigned max_width, max_height, max_blocks; unsigned short min_width, min_height; };
struct decoder_info { unsigned long width, height, surfaces; int codec, chroma; unsigned long flags[7]; int format, deinterlace; unsigned long target_width, target_height; };
struct decoder { unsigned long width, height; size_t pitch; unsigned decoded; };

CUresult cuvidGetDecoderCaps(struct decoder_caps *caps) {
  int known = caps->codec == CODEC_H264 || caps->codec == CODEC_HEVC || caps->codec == CODEC_VP9 || caps->codec == CODEC_AV1;
  caps->supported = known && caps->chroma == CHROMA_420 && caps->depth == 0;
  caps->max_width = caps->max_height = 4096;
  caps->max_blocks = 65536;
  caps->min_width = caps->min_height = 48;
  return CUDA_OK;
}
CUresult cuvidCreateDecoder(struct decoder **made, const struct decoder_info *info) {
  struct decoder *decoder = calloc(1, sizeof *decoder);
  if (!decoder || !depth) return CUDA_INVALID;
  decoder->width = info->target_width;
  decoder->height = info->target_height;
  decoder->pitch = (info->target_width + 255) / 256 * 256;
  note("decoder %d created %lux%lu", stack[depth - 1]->gpu->number, decoder->width, decoder->height);
  *made = decoder;
  return CUDA_OK;
}
CUresult cuvidDestroyDecoder(struct decoder *decoder) { free(decoder); return CUDA_OK; }
CUresult cuvidDecodePicture(struct decoder *decoder, const void *picture) {
  (void)picture;
  decoder->decoded++;
  return lost() ? CUDA_LAUNCH_FAILED : CUDA_OK;
}
/* A flat picture, brighter from one to the next, in a surface of its own: mapped ones stay what they are. */
CUresult cuvidMapVideoFrame64(struct decoder *decoder, int index, uintptr_t *pointer, unsigned *pitch) {
  (void)index;
  size_t luma = decoder->pitch * decoder->height;
  char *surface = malloc(luma * 3 / 2);
  if (!surface) return CUDA_OUT_OF_MEMORY;
  memset(surface, 16 + decoder->decoded % 200, luma);
  memset(surface + luma, 128, luma / 2);
  *pointer = (uintptr_t)surface;
  *pitch = decoder->pitch;
  return CUDA_OK;
}
CUresult cuvidUnmapVideoFrame64(struct decoder *decoder, uintptr_t surface) { (void)decoder; free((void *)surface); return CUDA_OK; }
CUresult cuvidCtxLockCreate(void **lock) { return handle(lock); }
NOTHING(cuvidCtxLockDestroy) NOTHING(cuvidCtxLock) NOTHING(cuvidCtxUnlock)

/* The driver's own parser, which 1.22's decoder relies on: takes one access unit a packet and gives it out at once. */
struct parser_info { int codec; unsigned surfaces, clock, threshold, delay, pad[5]; void *user; void *sequence, *decode, *display; };
struct packet { unsigned long flags, size; const unsigned char *bytes; int64_t at; };
struct format { int codec; unsigned rate, scale; unsigned char progressive, luma, chroma_depth, surfaces; unsigned coded_width, coded_height; int left, top, right, bottom; int chroma; unsigned bitrate; int aspect_x, aspect_y; unsigned char signal[4]; unsigned length; };
struct picture { int width_in_blocks, height_in_blocks, index; char rest[4280 - 12]; };
struct display { int index, progressive, top_first, repeat; int64_t at; };
struct parser { struct parser_info info; unsigned width, height; int next; };

CUresult cuvidCreateVideoParser(struct parser **made, const struct parser_info *info) {
  struct parser *parser = calloc(1, sizeof *parser);
  if (!parser) return CUDA_OUT_OF_MEMORY;
  parser->info = *info;
  *made = parser;
  return CUDA_OK;
}
CUresult cuvidDestroyVideoParser(struct parser *parser) { free(parser); return CUDA_OK; }

struct reader { const unsigned char *bytes; size_t size, bit; };
static unsigned bits(struct reader *reader, int count) {
  unsigned value = 0;
  for (; count; count--, reader->bit++)
    value = value << 1 | (reader->bit / 8 < reader->size ? reader->bytes[reader->bit / 8] >> (7 - reader->bit % 8) & 1 : 0);
  return value;
}
static unsigned golomb(struct reader *reader) {
  int zeros = 0;
  while (zeros < 31 && !bits(reader, 1)) zeros++;
  return (1u << zeros) - 1 + bits(reader, zeros);
}
/* Rec. ITU-T H.264 7.3.2.1.1, up to the size; enough for the 4:2:0 profiles without scaling lists. */
static int size_of_sps(const unsigned char *nal, size_t size, unsigned *width, unsigned *height) {
  unsigned char plain[256];
  size_t n = 0;
  for (size_t i = 1, zeros = 0; i < size && n < sizeof plain; i++) {
    if (zeros >= 2 && nal[i] == 3) { zeros = 0; continue; }
    zeros = nal[i] ? 0 : zeros + 1;
    plain[n++] = nal[i];
  }
  struct reader reader = {plain, n, 0};
  unsigned profile = bits(&reader, 8);
  bits(&reader, 16);
  golomb(&reader);
  if (profile >= 100) {
    if (golomb(&reader) == 3) bits(&reader, 1);
    golomb(&reader), golomb(&reader), bits(&reader, 1);
    if (bits(&reader, 1)) return 0;
  }
  golomb(&reader);
  unsigned order = golomb(&reader);
  if (order == 0) golomb(&reader);
  else if (order == 1) return 0;
  golomb(&reader), bits(&reader, 1);
  *width = (golomb(&reader) + 1) * 16;
  *height = (golomb(&reader) + 1) * 16;
  if (!bits(&reader, 1)) return 0; /* Fields. */
  bits(&reader, 1);
  if (bits(&reader, 1)) {
    *width -= 2 * golomb(&reader), *width -= 2 * golomb(&reader);
    *height -= 2 * golomb(&reader), *height -= 2 * golomb(&reader);
  }
  return 1;
}
CUresult cuvidParseVideoData(struct parser *parser, const struct packet *packet) {
  int slice = 0;
  for (size_t i = 0; i + 4 < packet->size; i++) {
    const unsigned char *at = packet->bytes + i;
    if (at[0] || at[1] || at[2] != 1) continue;
    int type = at[3] & 31;
    slice |= type == 1 || type == 5;
    unsigned width, height;
    if (type != 7 || !size_of_sps(at + 3, packet->size - i - 3, &width, &height)) continue;
    if (width == parser->width && height == parser->height) continue;
    parser->width = width, parser->height = height;
    struct format format = {.codec = CODEC_H264, .progressive = 1, .surfaces = 4, .coded_width = (width + 15) / 16 * 16,
      .coded_height = (height + 15) / 16 * 16, .right = width, .bottom = height, .chroma = CHROMA_420, .signal = {5, 2, 2, 2}};
    if (!((int (*)(void *, struct format *))parser->info.sequence)(parser->info.user, &format)) return CUDA_INVALID;
  }
  if (!slice || !parser->width) return CUDA_OK;
  struct picture picture = {parser->width / 16, parser->height / 16, parser->next, {0}};
  struct display display = {parser->next, 1, 0, 0, packet->at};
  parser->next = (parser->next + 1) % 4;
  if (!((int (*)(void *, struct picture *))parser->info.decode)(parser->info.user, &picture)) return CUDA_INVALID;
  return ((int (*)(void *, struct display *))parser->info.display)(parser->info.user, &display) ? CUDA_OK : CUDA_INVALID;
}

/* ---- libnvidia-encode ---- */

typedef struct { uint32_t a; uint16_t b, c; uint8_t d[8]; } guid;
static const guid H264 = {0x6bc82762, 0x4e63, 0x4ca4, {0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf}};
static const guid HEVC = {0x790cdc88, 0x4522, 0x4d7b, {0x94, 0x25, 0xbd, 0xa9, 0x97, 0x5f, 0x76, 0x03}};
static const guid AV1 = {0x0a352289, 0x0aa7, 0x4759, {0x86, 0x2d, 0x5d, 0x15, 0xcd, 0x16, 0xd2, 0x54}};
static const guid PROFILES[] = {
  {0x0727bcaa, 0x78c4, 0x4c83, {0x8c, 0x2f, 0xef, 0x3d, 0xff, 0x26, 0x7c, 0x6a}}, /* H.264 baseline */
  {0x60b5c1d4, 0x67fe, 0x4790, {0x94, 0xd5, 0xc4, 0x72, 0x6d, 0x7b, 0x6e, 0x6d}}, /* main */
  {0xe7cbc309, 0x4f7a, 0x4b89, {0xaf, 0x2a, 0xd5, 0x37, 0xc9, 0x2b, 0xe3, 0x10}}, /* high */
  {0xb514c39a, 0xb55b, 0x40fa, {0x87, 0x8f, 0xf1, 0x25, 0x3b, 0x4d, 0xfd, 0xec}}, /* HEVC main */
  {0x5f2a39f5, 0xf14e, 0x4f95, {0x9a, 0x9e, 0xb7, 0x6d, 0x56, 0x8f, 0xcf, 0x97}}, /* AV1 main */
};
/* The first words of the presets that drivers before 590 know besides P1 to P7. */
static const uint32_t OLD_PRESETS[] = {0xb2dfb705, 0x60e4c59f, 0x34dba71d, 0x49df21c5, 0xc5f733b9, 0x67082a44, 0xd5bfb716, 0x149998e7};

struct encoder {
  struct gpu *gpu;
  unsigned width, height, gop, pictures, frame_number, idr_id;
  int aud, repeat;
};
struct bitstream { unsigned char *bytes; size_t size; uint64_t at, duration; unsigned frame; int type; };

#define FIELD(type, base, offset) (*(type *)((char *)(base) + (offset)))
static int same(guid a, guid b) { return !memcmp(&a, &b, sizeof a); }

static int open_session(void *parameters, struct encoder **made) {
  struct context *context = FIELD(struct context *, parameters, 8);
  struct gpu *gpu = context ? context->gpu : NULL;
  if (!gpu) return ENC_INVALID_DEVICE;
  if (!gpu->nvenc) return ENC_UNSUPPORTED_DEVICE;
  pthread_mutex_lock(&mutex);
  int full = gpu->open_sessions >= gpu->free_sessions;
  if (!full) gpu->open_sessions++;
  pthread_mutex_unlock(&mutex);
  if (full) {
    note("session %d refused", gpu->number);
    return ENC_TOO_MANY_SESSIONS;
  }
  struct encoder *encoder = calloc(1, sizeof *encoder);
  if (!encoder) return ENC_OUT_OF_MEMORY;
  encoder->gpu = gpu;
  *made = encoder;
  return ENC_OK;
}
static int close_session(struct encoder *encoder) {
  pthread_mutex_lock(&mutex);
  encoder->gpu->open_sessions--;
  pthread_mutex_unlock(&mutex);
  if (encoder->width) note("encoder %d closed after %u pictures", encoder->gpu->number, encoder->pictures);
  free(encoder);
  return ENC_OK;
}
static int encode_guids(void *encoder, guid *out, uint32_t size, uint32_t *count) {
  (void)encoder;
  if (size < 3) return ENC_INVALID_PARAM;
  out[0] = H264, out[1] = HEVC, out[2] = AV1;
  *count = 3;
  return ENC_OK;
}
static int guid_count(void *encoder, uint32_t *count) { (void)encoder; *count = 3; return ENC_OK; }
static int profile_guids(void *encoder, guid codec, guid *out, uint32_t size, uint32_t *count) {
  (void)encoder;
  int first = same(codec, H264) ? 0 : same(codec, HEVC) ? 3 : same(codec, AV1) ? 4 : -1;
  if (first < 0) return ENC_UNSUPPORTED_PARAM;
  *count = first ? 1 : 3;
  if (size < *count) return ENC_INVALID_PARAM;
  memcpy(out, PROFILES + first, *count * sizeof *out);
  return ENC_OK;
}
static int profile_count(void *encoder, guid codec, uint32_t *count) {
  guid out[3];
  return profile_guids(encoder, codec, out, 3, count);
}
static int input_formats(void *encoder, guid codec, uint32_t *out, uint32_t size, uint32_t *count) {
  (void)encoder, (void)codec;
  if (!size) return ENC_INVALID_PARAM;
  *out = 1; /* NV12 */
  *count = 1;
  return ENC_OK;
}
static int format_count(void *encoder, guid codec, uint32_t *count) { (void)encoder, (void)codec; *count = 1; return ENC_OK; }
static int capability(void *encoder, guid codec, const void *query, int *value) {
  (void)encoder, (void)codec;
  switch (FIELD(int, query, 4)) {
    case 0: *value = 4; break;            /* B pictures */
    case 1: *value = 0x3b; break;         /* every rate control */
    case 7: case 20: case 26: case 37: case 38: case 41: *value = 1; break; /* CABAC, bit rate while running, VBV, look-ahead, temporal AQ, weights */
    case 16: case 17: *value = 4096; break;
    case 45: *value = 145; break;
    case 46: *value = 49; break;
    default: *value = 0;
  }
  return ENC_OK;
}
static int preset_count(void *encoder, guid codec, uint32_t *count) { (void)encoder, (void)codec; *count = 0; return ENC_OK; }
static int preset_config(void *encoder, guid codec, guid preset, void *out) {
  (void)codec;
  if (encoder && atoi(driver_version()) >= 590)
    for (size_t i = 0; i < sizeof OLD_PRESETS / sizeof *OLD_PRESETS; i++)
      if (preset.a == OLD_PRESETS[i]) return ENC_UNSUPPORTED_PARAM;
  /* One B picture, a long GOP and variable bit rate, so that what the caller wants otherwise must be said by it. */
  char *config = (char *)out + 8;
  FIELD(uint32_t, config, 20) = 250;
  FIELD(int, config, 24) = 2;
  FIELD(int, config, 40 + 4) = 1;
  return ENC_OK;
}
static int preset_config_ex(void *encoder, guid codec, guid preset, int tuning, void *out) {
  (void)tuning;
  return preset_config(encoder, codec, preset, out);
}
static int configure(struct encoder *encoder, const void *parameters, const char *verb) {
  const char *config = FIELD(const char *, parameters, 88);
  if (!config) return ENC_INVALID_PARAM;
  encoder->width = FIELD(uint32_t, parameters, 36);
  encoder->height = FIELD(uint32_t, parameters, 40);
  encoder->gop = FIELD(uint32_t, config, 20);
  uint32_t rate_control = FIELD(uint32_t, config, 40 + 36), h264 = FIELD(uint32_t, config, 168);
  encoder->aud = h264 >> 6 & 1;
  encoder->repeat = h264 >> 12 & 1;
  note("encoder %d %s %ux%u preset=%08x tune=%d rc=%d bits=%u vbv=%u gop=%u interval=%d lookahead=%u reorder=%u strict=%u aud=%d repeat=%d",
       encoder->gpu->number, verb, encoder->width, encoder->height, FIELD(uint32_t, parameters, 20),
       FIELD(int, parameters, 136), FIELD(int, config, 44), FIELD(uint32_t, config, 60),
       FIELD(uint32_t, config, 68), encoder->gop, FIELD(int, config, 24), rate_control >> 5 & 1, !(rate_control >> 9 & 1),
       rate_control >> 11 & 1, encoder->aud, encoder->repeat);
  return ENC_OK;
}
static int initialize(struct encoder *encoder, const void *parameters) {
  if (!same(FIELD(guid, parameters, 4), H264)) return ENC_UNSUPPORTED_PARAM;
  return configure(encoder, parameters, "opened");
}
static int reconfigure(struct encoder *encoder, const void *parameters) { return configure(encoder, (const char *)parameters + 8, "changed"); }
static int create_bitstream(void *encoder, void *parameters) {
  (void)encoder;
  void *made = calloc(1, sizeof(struct bitstream));
  FIELD(void *, parameters, 16) = made;
  return made ? ENC_OK : ENC_OUT_OF_MEMORY;
}
static int destroy_bitstream(void *encoder, struct bitstream *bitstream) {
  (void)encoder;
  free(bitstream->bytes);
  free(bitstream);
  return ENC_OK;
}
static int register_resource(void *encoder, void *parameters) { (void)encoder; FIELD(void *, parameters, 32) = FIELD(void *, parameters, 24); return ENC_OK; }
static int map_resource(void *encoder, void *parameters) {
  (void)encoder;
  FIELD(void *, parameters, 24) = FIELD(void *, parameters, 16);
  FIELD(uint32_t, parameters, 32) = 1;
  return ENC_OK;
}
static int done(void) { return ENC_OK; }
static const char *last_error(void *encoder) { (void)encoder; return "the stub says no"; }

/* Writes H.264 in Annex B: Rec. ITU-T H.264 7.3. */
struct writer { unsigned char *bytes; size_t size, bit; };
static void put(struct writer *writer, unsigned value, int count) {
  for (; count; count--, writer->bit++)
    if (writer->bit / 8 < writer->size) writer->bytes[writer->bit / 8] |= (value >> (count - 1) & 1) << (7 - writer->bit % 8);
}
static void put_golomb(struct writer *writer, unsigned value) {
  int length = 0;
  for (unsigned v = value + 1; v > 1; v >>= 1) length++;
  put(writer, 0, length);
  put(writer, value + 1, length + 1);
}
/* Ends the payload; with start code and emulation prevention behind `at`. */
static size_t nal(struct writer *payload, unsigned char header, unsigned char *to) {
  put(payload, 1, 1);
  size_t size = (payload->bit + 7) / 8, n = 0, zeros = 0;
  if (size > payload->size) abort();
  to[n++] = 0, to[n++] = 0, to[n++] = 0, to[n++] = 1, to[n++] = header;
  for (size_t i = 0; i < size; i++) {
    if (zeros >= 2 && payload->bytes[i] <= 3) to[n++] = 3, zeros = 0;
    zeros = payload->bytes[i] ? 0 : zeros + 1;
    to[n++] = payload->bytes[i];
  }
  return n;
}
static size_t parameter_sets(const struct encoder *encoder, unsigned char *to) {
  unsigned columns = (encoder->width + 15) / 16, rows = (encoder->height + 15) / 16;
  unsigned char room[64] = {0};
  struct writer sps = {room, sizeof room, 0};
  put(&sps, 66, 8), put(&sps, 0xc0, 8), put(&sps, 40, 8); /* Constrained baseline, level 4. */
  put_golomb(&sps, 0), put_golomb(&sps, 0);               /* Its number; frame numbers of 4 bits. */
  put_golomb(&sps, 2), put_golomb(&sps, 1), put(&sps, 0, 1); /* Output in decoding order, one reference. */
  put_golomb(&sps, columns - 1), put_golomb(&sps, rows - 1), put(&sps, 3, 2);
  put(&sps, 1, 1);
  put_golomb(&sps, 0), put_golomb(&sps, (columns * 16 - encoder->width) / 2);
  put_golomb(&sps, 0), put_golomb(&sps, (rows * 16 - encoder->height) / 2);
  put(&sps, 0, 1);
  size_t n = nal(&sps, 0x67, to);
  unsigned char small[16] = {0};
  struct writer pps = {small, sizeof small, 0};
  put_golomb(&pps, 0), put_golomb(&pps, 0), put(&pps, 0, 2), put_golomb(&pps, 0), put_golomb(&pps, 0), put_golomb(&pps, 0);
  put(&pps, 0, 3), put_golomb(&pps, 0), put_golomb(&pps, 0), put_golomb(&pps, 0), put(&pps, 0, 3);
  return n + nal(&pps, 0x68, to + n);
}
static size_t slice(struct encoder *encoder, int idr, unsigned char *to) {
  unsigned blocks = (encoder->width + 15) / 16 * ((encoder->height + 15) / 16);
  size_t room = 32 + blocks;
  struct writer out = {calloc(1, room), room, 0};
  if (!out.bytes) abort();
  put_golomb(&out, 0), put_golomb(&out, idr ? 7 : 5), put_golomb(&out, 0);
  encoder->frame_number = idr ? 0 : (encoder->frame_number + 1) % 16;
  put(&out, encoder->frame_number, 4);
  if (idr) put_golomb(&out, encoder->idr_id++ % 2), put(&out, 0, 2);
  else put(&out, 0, 3);
  put_golomb(&out, 0);
  /* Intra 16x16 predicted as DC, no coefficients; or all skipped. */
  if (idr) for (unsigned i = 0; i < blocks; i++) put_golomb(&out, 3), put(&out, 7, 3);
  else put_golomb(&out, blocks);
  size_t n = nal(&out, idr ? 0x65 : 0x41, to);
  free(out.bytes);
  return n;
}
static int encode(struct encoder *encoder, const void *picture) {
  uint32_t flags = FIELD(uint32_t, picture, 16);
  if (flags & 8) return ENC_OK; /* The end. */
  struct bitstream *out = FIELD(struct bitstream *, picture, 48);
  if (!out || !FIELD(void *, picture, 40)) return ENC_INVALID_PARAM;
  if (lost()) return ENC_GENERIC;
  int idr = !encoder->pictures || flags & 2 || (encoder->gop && encoder->pictures % encoder->gop == 0);
  unsigned blocks = (encoder->width + 15) / 16 * ((encoder->height + 15) / 16);
  free(out->bytes);
  out->bytes = malloc(512 + blocks * 3);
  if (!out->bytes) return ENC_OUT_OF_MEMORY;
  out->size = 0;
  if (encoder->aud) memcpy(out->bytes, "\0\0\0\1\x09\xf0", 6), out->size = 6;
  if (idr && (encoder->repeat || flags & 4)) out->size += parameter_sets(encoder, out->bytes + out->size);
  out->size += slice(encoder, idr, out->bytes + out->size);
  out->at = FIELD(uint64_t, picture, 24);
  out->duration = FIELD(uint64_t, picture, 32);
  out->frame = encoder->pictures++;
  out->type = idr ? 3 : 0;
  pthread_mutex_lock(&mutex);
  if (pictures_left > 0 && --pictures_left == 0) note("lost %d", encoder->gpu->number);
  pthread_mutex_unlock(&mutex);
  return ENC_OK;
}
static int lock_bitstream(void *encoder, void *parameters) {
  (void)encoder;
  if (lost()) return ENC_GENERIC;
  struct bitstream *bitstream = FIELD(struct bitstream *, parameters, 8);
  FIELD(uint32_t, parameters, 24) = bitstream->frame;
  FIELD(uint32_t, parameters, 36) = bitstream->size;
  FIELD(uint64_t, parameters, 40) = bitstream->at;
  FIELD(uint64_t, parameters, 48) = bitstream->duration;
  FIELD(void *, parameters, 56) = bitstream->bytes;
  FIELD(int, parameters, 64) = bitstream->type;
  return ENC_OK;
}
static int sequence_parameters(struct encoder *encoder, void *parameters) {
  if (FIELD(uint32_t, parameters, 4) < 128) return ENC_INVALID_PARAM;
  *FIELD(uint32_t *, parameters, 24) = parameter_sets(encoder, FIELD(unsigned char *, parameters, 16));
  return ENC_OK;
}
static int unsupported(void) { return ENC_UNSUPPORTED_PARAM; }

int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) { *version = 13 << 4; return ENC_OK; }
int NvEncodeAPICreateInstance(void *list) {
  void **function = (void **)((char *)list + 8);
  for (int i = 0; i <= 40; i++) function[i] = unsupported;
  function[1] = guid_count, function[2] = profile_count, function[3] = profile_guids, function[4] = encode_guids;
  function[5] = format_count, function[6] = input_formats, function[7] = capability, function[8] = preset_count;
  function[10] = preset_config, function[11] = initialize, function[14] = create_bitstream, function[15] = destroy_bitstream;
  function[16] = encode, function[17] = lock_bitstream, function[18] = done, function[22] = sequence_parameters;
  function[25] = map_resource, function[26] = done, function[27] = close_session, function[29] = open_session;
  function[30] = register_resource, function[31] = done, function[32] = reconfigure, function[37] = last_error;
  function[38] = done, function[39] = preset_config_ex;
  return ENC_OK;
}

/* ---- libnvidia-ml: sees every GPU, whatever CUDA_VISIBLE_DEVICES says ---- */

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpu_count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **gpu) {
  if (index >= (unsigned)gpu_count) return 2;
  *gpu = &gpus[index];
  return 0;
}
int nvmlDeviceGetName(const struct gpu *gpu, char *name, unsigned size) { snprintf(name, size, "%s", gpu_name(gpu)); return 0; }
int nvmlDeviceGetUUID(const struct gpu *gpu, char *uuid, unsigned size) { uuid_text(gpu, uuid, size); return 0; }
int nvmlDeviceGetPciInfo_v3(const struct gpu *gpu, char *info) {
  memset(info, 0, 68);
  FIELD(unsigned, info, 20) = gpu->number + 1;
  snprintf(info, 16, "0000:%02X:00.0", gpu->number + 1);
  snprintf(info + 36, 32, "00000000:%02X:00.0", gpu->number + 1);
  return 0;
}
int nvmlDeviceGetMemoryInfo_v2(const struct gpu *gpu, char *info) {
  (void)gpu;
  uint64_t total = 24ull << 30, used = 1ull << 30, values[4] = {total, 0, total - used, used};
  memcpy(info + 8, values, sizeof values);
  return 0;
}
int nvmlDeviceGetEncoderStats(const struct gpu *gpu, unsigned *sessions, unsigned *rate, unsigned *latency) {
  *sessions = gpu->free_sessions < ALL_SESSIONS ? ALL_SESSIONS - gpu->free_sessions : 0;
  *rate = *latency = 0;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(const struct gpu *gpu, int type, unsigned *clock) { (void)gpu, (void)type; *clock = 1770; return 0; }
int nvmlDeviceGetClockInfo(const struct gpu *gpu, int type, unsigned *clock) { (void)type; *clock = gpu->hot ? 885 : 1770; return 0; }
int nvmlDeviceGetTemperature(const struct gpu *gpu, int sensor, unsigned *celsius) { (void)sensor; *celsius = gpu->hot ? 93 : 41; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(const struct gpu *gpu, unsigned long long *reasons) {
  *reasons = gpu->hot ? 0x20 : 0x1; /* Software thermal slowdown; idle. */
  return 0;
}
int nvmlDeviceGetEncoderUtilization(const struct gpu *gpu, unsigned *percent, unsigned *period) {
  if (!gpu->nvenc) return 3; /* Not supported. */
  *percent = 7, *period = 167000;
  return 0;
}
int nvmlDeviceGetDecoderUtilization(const struct gpu *gpu, unsigned *percent, unsigned *period) {
  (void)gpu;
  *percent = 3, *period = 167000;
  return 0;
}
int nvmlDeviceGetMigMode(const struct gpu *gpu, unsigned *current, unsigned *pending) { (void)gpu; *current = *pending = 0; return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { snprintf(version, size, "%s", driver_version()); return 0; }
