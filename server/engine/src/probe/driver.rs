//! Loads NVIDIA's libraries by the names that GStreamer loads them by, and asks them the few things that nothing else tells:
//! which GPU a CUDA ordinal is, and NVRTC's version.
//!
//! CUDA ordinals are not NVML's indices, and CUDA_VISIBLE_DEVICES renumbers them; a UUID is the same in both.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint};

use libloading::{Library, Symbol};

use super::facts::{Cuda, CudaDevice, Driver};

/// CUresult and nvrtcResult of success.
const SUCCESS: c_int = 0;
/// What GStreamer handles at most, and far more than a host holds.
const MAX_DEVICES: c_int = 64;
/// NVRTC's sonames from CUDA 11.2 on.
const NVRTC_NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2"];

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Text = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type Uuid = unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

pub(crate) fn ask() -> Driver {
    let nvrtc_name = std::env::var("GST_CUDA_NVRTC_LIBNAME").unwrap_or_else(|_| "libnvrtc.so".into());
    let elsewhere = |name: &&&str| nvrtc_version(name).is_some();
    Driver {
        cuda: cuda(),
        nvcuvid: open("libnvcuvid.so.1").is_some(),
        nvenc: open("libnvidia-encode.so.1").is_some(),
        nvrtc_elsewhere: NVRTC_NAMES.iter().filter(elsewhere).map(|name| (*name).to_owned()).collect(),
        nvrtc: nvrtc_version(&nvrtc_name),
        nvrtc_name,
    }
}

fn open(name: &str) -> Option<Library> {
    // SAFETY: these are the libraries that GStreamer's nvcodec plug-in loads into this process anyway; their constructors
    // have no preconditions, and no symbol outlives its library (each caller holds both).
    unsafe { Library::new(name) }.ok()
}

fn cuda() -> Cuda {
    open("libcuda.so.1").map_or(Cuda::Absent, |library| match devices(&library) {
        Ok(devices) => Cuda::Devices(devices),
        Err(code) => Cuda::Failed(code),
    })
}

/// CUDA_ERROR_NOT_FOUND, for a library that lacks a function.
const NOT_FOUND: c_int = 500;

fn devices(library: &Library) -> Result<Vec<CudaDevice>, c_int> {
    let checked = |code| if code == SUCCESS { Ok(()) } else { Err(code) };
    // SAFETY: the signatures are those of cuda.h since CUDA 9.2 and have never changed. Every pointer is to a local of the
    // right size that lives through the call, lengths are the buffers' own, and ordinals are below the count. The zeroed
    // last byte of the text buffers is never written, so that they end.
    unsafe {
        let init: Symbol<'_, Init> = library.get(b"cuInit\0").map_err(|_| NOT_FOUND)?;
        let count_of: Symbol<'_, Count> = library.get(b"cuDeviceGetCount\0").map_err(|_| NOT_FOUND)?;
        let get: Symbol<'_, Get> = library.get(b"cuDeviceGet\0").map_err(|_| NOT_FOUND)?;
        let name_of: Symbol<'_, Text> = library.get(b"cuDeviceGetName\0").map_err(|_| NOT_FOUND)?;
        let pci_of: Symbol<'_, Text> = library.get(b"cuDeviceGetPCIBusId\0").map_err(|_| NOT_FOUND)?;
        let uuid_of: Symbol<'_, Uuid> = library.get(b"cuDeviceGetUuid\0").map_err(|_| NOT_FOUND)?;
        checked(init(0))?;
        let mut count = 0;
        checked(count_of(&mut count))?;
        let mut found = Vec::new();
        for ordinal in 0..count.clamp(0, MAX_DEVICES) {
            let (mut device, mut bytes) = (0, [0u8; 16]);
            checked(get(&mut device, ordinal))?;
            checked(uuid_of(&mut bytes, device))?;
            let text = |ask: &Symbol<'_, Text>| {
                let mut buffer = [0 as c_char; 97];
                checked(ask(buffer.as_mut_ptr(), 96, device))?;
                Ok::<_, c_int>(CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned())
            };
            found.push(CudaDevice { name: text(&name_of)?, uuid: uuid(&bytes), pci: text(&pci_of)?.to_lowercase() });
        }
        Ok(found)
    }
}

/// As nvidia-smi and NVML write it.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::from("GPU-");
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

fn nvrtc_version(name: &str) -> Option<(i32, i32)> {
    let library = open(name)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: `nvrtcVersion(int *, int *)` of nvrtc.h; both point to locals.
    let code = unsafe {
        let version: Symbol<'_, Version> = library.get(b"nvrtcVersion\0").ok()?;
        version(&mut major, &mut minor)
    };
    (code == SUCCESS).then_some((major, minor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Two GPUs, as cuda.h declares them; `init` is what cuInit answers.
    fn stub(init: c_int) -> Library {
        let source = format!(
            "#include <string.h>\n\
             int cuInit(unsigned flags) {{ return flags ? 1 : {init}; }}\n\
             int cuDeviceGetCount(int *n) {{ *n = 2; return 0; }}\n\
             int cuDeviceGet(int *d, int n) {{ *d = 40 + n; return n < 2 ? 0 : 101; }}\n\
             int cuDeviceGetName(char *s, int l, int d) {{ strncpy(s, d == 40 ? \"A\" : \"B\", l); return 0; }}\n\
             int cuDeviceGetPCIBusId(char *s, int l, int d) {{ memset(s, d == 40 ? 'C' : 'D', l); return 0; }}\n\
             int cuDeviceGetUuid(char *u, int d) {{ memset(u, d, 16); return 0; }}\n\
             int nvrtcVersion(int *a, int *b) {{ *a = 12; *b = 9; return 0; }}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let (code, library) = (folder.path().join("stub.c"), folder.path().join("stub.so"));
        std::fs::write(&code, source).unwrap();
        // The linker driver that rustc itself needs.
        let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status();
        assert!(built.unwrap().success());
        assert_eq!(nvrtc_version(library.to_str().unwrap()), Some((12, 9)));
        open(library.to_str().unwrap()).unwrap()
    }

    #[test]
    fn every_device_is_asked_for_its_name_place_and_uuid() {
        let found = devices(&stub(0)).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[1].name.as_str()), ("A", "B"));
        assert_eq!(found[0].uuid, "GPU-28282828-2828-2828-2828-282828282828");
        // A text that fills its whole buffer still ends.
        assert_eq!(found[1].pci, "d".repeat(96));
    }

    #[test]
    fn a_driver_that_does_not_start_says_why() {
        assert_eq!(devices(&stub(803)), Err(803));
    }

    #[test]
    fn uuids_look_like_nvmls() {
        let bytes: [u8; 16] = std::array::from_fn(|n| u8::try_from(n * 17).unwrap_or(0));
        assert_eq!(uuid(&bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_library_that_is_not_what_its_name_says_is_no_driver() {
        // libc has none of the functions, and is there wherever these tests run.
        assert!(open("libc.so.6").is_some_and(|libc| devices(&libc) == Err(NOT_FOUND)));
        assert_eq!(nvrtc_version("libc.so.6"), None);
        assert_eq!(nvrtc_version("libno-such.so"), None);
    }
}
