// Bit rates of the last minutes, one line a rendition.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { formatBitrate } from '../ui/format';
import { onThemeChange } from '../ui/theme';
import { HISTORY, type History } from './model';

const HEIGHT = 92;

/** Colours of the lines and of the dots in the table; after the sixth they begin again. */
export function seriesClass(index: number): string {
  return `series-${index % 6}`;
}

export class Chart {
  readonly element = document.createElement('div');
  private plot: uPlot | null = null;
  private ids = '';

  constructor() {
    this.element.className = 'chart';
    this.element.setAttribute('aria-hidden', 'true');
    new ResizeObserver(() => this.fit()).observe(this.element);
    onThemeChange(() => requestAnimationFrame(() => this.plot?.redraw()));
  }

  /** `order`: rendition ids, best first: the same order and colours as in the table. */
  update(history: History, order: readonly string[]): void {
    if (order.join() !== this.ids || !this.plot) {
      this.ids = order.join();
      this.plot?.destroy();
      this.plot = new uPlot(this.options(order), [[], ...order.map(() => [])], this.element);
    }
    const series = order.map((id) => history.series.get(id) ?? []);
    this.plot.setData([history.times, ...series] as uPlot.AlignedData);
  }

  destroy(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  private fit(): void {
    const width = this.element.clientWidth;
    if (width > 0 && this.plot && this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
  }

  private options(order: readonly string[]): uPlot.Options {
    const font = '11px system-ui, sans-serif';
    return {
      width: Math.max(this.element.clientWidth, 100),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 0, 2, 0],
      scales: {
        // Always the whole window, so that a young page does not stretch its first points over it.
        x: { time: false, range: (_u, _min, max) => [max - (HISTORY - 1) * 2, max] },
        y: { range: (_u, _min, max) => [0, Math.max(max, 1000) * 1.1] },
      },
      axes: [
        { show: false },
        {
          side: 1,
          size: 58,
          gap: 6,
          font,
          space: 26,
          stroke: () => color('--muted'),
          grid: { stroke: () => color('--line'), width: 1 },
          ticks: { show: false },
          values: (_u, splits) => splits.map((value) => (value === 0 ? '0' : formatBitrate(value))),
        },
      ],
      series: [
        {},
        ...order.map((_id, index) => ({
          stroke: () => color(`--series-${index % 6}`),
          width: 1.5,
          points: { show: false },
        })),
      ],
    };
  }
}

let probe: HTMLElement | null = null;

/** A custom property as a colour that a canvas understands. */
function color(property: string): string {
  if (!probe) {
    probe = document.createElement('span');
    probe.className = 'off-screen';
    document.body.append(probe);
  }
  probe.style.color = `var(${property})`;
  return getComputedStyle(probe).color;
}
