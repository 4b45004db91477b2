// A clock in a worker: timers of a page in the background come once a second, those of a worker keep time.

let timer: ReturnType<typeof setTimeout> | undefined;

self.onmessage = ({ data }: MessageEvent<number>) => {
  clearTimeout(timer);
  const interval = 1000 / data;
  let next = performance.now();
  const tick = () => {
    self.postMessage(null);
    // Frames that were missed stay missed: catching up would only send a burst.
    next = Math.max(next + interval, performance.now());
    timer = setTimeout(tick, next - performance.now());
  };
  tick();
};
