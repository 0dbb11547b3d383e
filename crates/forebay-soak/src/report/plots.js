'use strict';
// Plots as SVG: axes, lines, cells. Data in, elements out; nothing here knows what a soak test is.
const W = 1140;
const el = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};
const svg = (name, attributes = {}, text) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const number = (value) => {
  if (value === null || value === undefined || !Number.isFinite(value)) return '-';
  if (value === 0) return '0'; // And not '-0'.
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return value.toLocaleString('en');
  if (size >= 1e9) return (value / 1e9).toPrecision(3) + 'G';
  if (size >= 1e6) return (value / 1e6).toPrecision(3) + 'M';
  if (size >= 1e4) return Math.round(value).toLocaleString('en');
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toPrecision(2);
};
// Spread into the arguments of a call, the samples of a night would be too many.
const highest = (values, least = -Infinity) => values.reduce((one, other) => Math.max(one, other), least);
const lowest = (values) => values.reduce((one, other) => Math.min(one, other), Infinity);
const clock = (seconds) => {
  if (seconds < 120) return number(seconds) + ' s';
  if (seconds < 7200) return number(seconds / 60) + ' min';
  return number(seconds / 3600) + ' h';
};
const steps = (low, high, count) => {
  const span = high - low || 1, raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(at);
  return found;
};
const decades = (low, high) => {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high * 1.001; power++) {
    for (const factor of high / low > 200 ? [1] : [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found;
};
const nice = (value) => {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((f) => f * power).find((bound) => bound >= value) || value;
};
// A plot: `x` and `y` are {from, to, log, label, format, ticks}.
const plot = (height, x, y, label) => {
  const left = 66, right = 14, top = 10, bottom = 44;
  const root = svg('svg', { viewBox: `0 0 ${W} ${height}`, role: 'img', 'aria-label': label });
  const scale = (axis, from, to) => (value) => {
    const at = axis.log
      ? Math.log(Math.max(value, axis.from) / axis.from) / Math.log(axis.to / axis.from)
      : (value - axis.from) / (axis.to - axis.from || 1);
    return from + Math.min(Math.max(at, -0.02), 1.02) * (to - from);
  };
  const px = scale(x, left, W - right), py = scale(y, height - bottom, top);
  const ticks = (axis, count) => axis.ticks || (axis.log ? decades(axis.from, axis.to) : steps(axis.from, axis.to, count));
  for (const value of ticks(y, 5)) {
    root.append(svg('line', { class: 'grid', x1: left, x2: W - right, y1: py(value), y2: py(value) }));
    root.append(svg('text', { x: left - 8, y: py(value) + 4, 'text-anchor': 'end' }, (y.format || number)(value)));
  }
  for (const value of ticks(x, 10)) {
    root.append(svg('line', { class: 'grid', x1: px(value), x2: px(value), y1: top, y2: height - bottom }));
    root.append(svg('text', { x: px(value), y: height - bottom + 17, 'text-anchor': 'middle' }, (x.format || number)(value)));
  }
  root.append(svg('line', { class: 'axis', x1: left, x2: W - right, y1: height - bottom, y2: height - bottom }));
  root.append(svg('text', { class: 'title', x: (left + W - right) / 2, y: height - 8, 'text-anchor': 'middle' }, x.label));
  root.append(svg('text', { class: 'title', x: 0, y: 0, transform: `translate(13 ${(height - bottom + top) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, y.label));
  const line = (points, color, dash) => {
    const path = points.filter((p) => p && Number.isFinite(p[0]) && Number.isFinite(p[1]))
      .map(([a, b], place) => `${place ? 'L' : 'M'}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join('');
    if (path) root.append(svg('path', { d: path, fill: 'none', stroke: `var(--${color})`, 'stroke-width': 2, 'stroke-dasharray': dash ? '6 4' : 'none', 'stroke-linejoin': 'round' }));
  };
  const dot = ([a, b], color, hollow, text) => {
    const circle = svg('circle', { cx: px(a), cy: py(b), r: 4.5, stroke: `var(--${color})`, 'stroke-width': 2, fill: hollow ? 'var(--card)' : `var(--${color})` });
    circle.append(svg('title', {}, text));
    root.append(circle);
  };
  return { root, px, py, left, right, top, bottom, height, line, dot };
};
const legend = (entries) => el('div', { class: 'legend' }, ...entries.map(([color, text, kind]) => {
  const mark = el('i', { class: kind || '' });
  mark.style[kind === 'box' ? 'background' : 'borderColor'] = `var(--${color})`;
  return el('span', {}, mark, text);
}));
const card = (title, text, ...children) =>
  el('section', { class: 'card' }, el('h2', {}, title), text ? el('p', { class: 'soft' }, text) : null, ...children);
const table = (head, rows) => {
  const body = el('tbody');
  for (const row of rows) {
    body.append(el('tr', {}, ...row.map((cell, place) => el('td', { class: head[place][1] || '' }, cell))));
  }
  return el('table', {},
    el('thead', {}, el('tr', {}, ...head.map(([name, kind]) => el('th', { class: kind || '' }, name)))), body);
};
