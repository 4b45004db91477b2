// Numbers as people read them: bit rates, durations, sizes, counts.

const count = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export function formatCount(n: number): string {
  return count.format(n);
}

/** `6.0 Mb/s`, `700 kb/s`, `0 b/s`; a dash for what is not a number. */
export function formatBitrate(bitsPerSecond: number): string {
  if (!Number.isFinite(bitsPerSecond) || bitsPerSecond < 0) return '–';
  if (bitsPerSecond >= 1e9) return `${(bitsPerSecond / 1e9).toFixed(2)} Gb/s`;
  if (bitsPerSecond >= 999_500) return `${(bitsPerSecond / 1e6).toFixed(1)} Mb/s`;
  if (bitsPerSecond >= 1000) return `${(bitsPerSecond / 1e3).toFixed(0)} kb/s`;
  return `${bitsPerSecond.toFixed(0)} b/s`;
}

export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes) || bytes < 0) return '–';
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 999_500) return `${(bytes / 1e6).toFixed(1)} MB`;
  if (bytes >= 1000) return `${(bytes / 1e3).toFixed(0)} kB`;
  return `${bytes.toFixed(0)} B`;
}

/** `700 MiB`, `11.7 GiB`: memory of a device. */
export function formatMebibytes(mebibytes: number): string {
  if (!Number.isFinite(mebibytes) || mebibytes < 0) return '–';
  if (mebibytes < 1024) return `${Math.round(mebibytes)} MiB`;
  const gibibytes = mebibytes / 1024;
  return `${gibibytes.toFixed(gibibytes < 100 ? 1 : 0)} GiB`;
}

/** `0.8 of 11.7 GiB`: both in the unit of the whole. */
export function formatMemoryOf(part: number, whole: number): string {
  if (whole < 1024) return `${Math.round(part)} of ${formatMebibytes(whole)}`;
  return `${part > 0 ? (part / 1024).toFixed(1) : 0} of ${formatMebibytes(whole)}`;
}

/** The two largest units: `14 s`, `3 min 20 s`, `2 h 3 min`, `5 d 4 h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  if (s < 3600) return pair(Math.floor(s / 60), 'min', s % 60, 's');
  if (s < 86_400) return pair(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
  return pair(Math.floor(s / 86_400), 'd', Math.floor((s % 86_400) / 3600), 'h');
}

/** `850 ms` below a second, else `1.2 s`. */
export function formatLatency(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  if (Math.abs(seconds) < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  return Math.abs(seconds) < 100 ? `${seconds.toFixed(1)} s` : formatDuration(seconds);
}

/** `29.97`, `30`, `12.5`. */
export function formatFrameRate(rate: number): string {
  return Number.isFinite(rate) ? String(Number(rate.toFixed(2))) : '–';
}

/** A share as `0 %`, `0.02 %`, `1.2 %`, `12 %`. */
export function formatPercent(part: number, whole: number): string {
  if (!(whole > 0) || part <= 0) return '0 %';
  const percent = (100 * part) / whole;
  if (percent < 0.01) return '< 0.01 %';
  if (percent < 1) return `${percent.toFixed(2)} %`;
  return percent < 10 ? `${percent.toFixed(1)} %` : `${percent.toFixed(0)} %`;
}

/** RFC 6381 codec strings by the names that operators use. */
export function formatCodec(codec: string): string {
  const [family = '', detail = ''] = codec.split('.', 2);
  if (family === 'avc1' || family === 'avc3') {
    const profile = { '42': 'Baseline', '4d': 'Main', '58': 'Extended', '64': 'High' }[
      detail.slice(0, 2).toLowerCase()
    ];
    const level = Number.parseInt(detail.slice(4, 6), 16) / 10;
    return ['H.264', profile, level > 0 ? level.toFixed(1) : ''].filter(Boolean).join(' ');
  }
  if (family === 'mp4a') return 'AAC';
  if (family.toLowerCase() === 'opus') return 'Opus';
  if (family === 'hvc1' || family === 'hev1') return 'H.265';
  if (family === 'av01') return 'AV1';
  return codec;
}
