// The report: what the JSON in this page says, as tables and plots.
const report = JSON.parse(document.getElementById('data').textContent);
const page = document.getElementById('report');
const words = {
  pass: 'pass', objective_missed: 'objective missed', promise_broken: 'promise broken', leak: 'leak',
  not_healed: 'not healed', overloaded: 'void: the harness could not keep up', interrupted: 'interrupted',
};
const color = (place) => 'c' + (place % 6);
const percent = (part, whole) => (whole ? (100 * part / whole).toFixed(part === whole ? 0 : 3) : '0') + ' %';
const ms = (value) => number(value > 0 && value < 0.001 ? 0 : value) + ' ms';
const orDash = (value) => (value === null || value === undefined ? '-' : ms(value));
const first = report.runs[0];
const searched = (found) => found && found.rate ? 'pass' : found && found.limited_by_harness ? 'overloaded' : 'objective_missed';
const code = first ? first.verdict.code : searched(report.capacity);

const head = () => {
  const made = new Date(report.made_unix_s * 1000).toISOString().replace('T', ' ').slice(0, 16);
  page.append(el('h1', {}, 'Soak test: ' + report.profile.name,
    el('span', { class: 'badge ' + (code === 'pass' ? 'pass' : '') }, words[code])));
  page.append(el('p', { class: 'soft' },
    `${report.model}, ${report.machine.cpu || 'unknown processor'} (${report.machine.cpus} CPUs, ` +
    `${Math.round(report.machine.memory_mib / 1024)} GiB), ${report.machine.kernel}, forebay ${report.release}, ${made} UTC`));
};

const summary = ({ run, verdict }, place) => {
  const t = run.tallied, tile = (value, name) => el('div', { class: 'tile' }, el('b', {}, value), el('span', {}, name));
  const box = card(run.target, null,
    el('div', { class: 'tiles' },
      tile(number(t.offered), 'requests due'), tile(number(t.offered - t.unsent - t.refused), 'accepted'),
      tile(percent(t.good, t.offered), 'right and in time'),
      tile(number(t.texts / (run.measured_s || 1)), 'texts per second'),
      tile(ms(t.from_due.p50_ms), 'p50'), tile(ms(t.from_due.p99_ms), 'p99'),
      tile(ms(t.from_due.p999_ms), 'p99.9'), tile(ms(t.calm.p99_ms), 'p99 without faults'),
      tile(String(run.faults.length), 'faults'), tile(String(t.lost), 'lost'), tile(String(t.wrong), 'wrong'),
      tile(clock(run.measured_s), 'measured'),
      run.joules_per_1k_texts ? tile(number(run.joules_per_1k_texts) + ' J', 'per 1,000 texts') : null));
  if (run.counter_example) {
    box.append(el('p', { class: 'example' }, el('b', {}, 'First counter-example: '), run.counter_example,
      el('br'), 'Repeat it: ', el('code', {}, report.replay)));
  }
  const row = (f) => [el('span', { class: f.passed ? 'yes' : 'no' }, f.passed ? 'yes' : 'no'), f.what, f.found, f.allowed];
  const columns = [['passed'], ['what'], ['found'], ['allowed']];
  const failed = verdict.findings.filter((f) => !f.passed);
  if (failed.length) box.append(table(columns, failed.map(row)));
  box.append(el('details', {}, el('summary', {}, `everything that was looked at (${verdict.findings.length})`),
    table(columns, verdict.findings.map(row))));
  const kinds = Object.entries(t.by_kind);
  if (kinds.length) {
    box.append(el('p', { class: 'soft' }, 'Refusals and errors: ' + kinds.map(([k, n]) => `${k} ${number(n)}`).join(', ')));
  }
  page.append(box);
};

const percentiles = () => {
  const curves = report.runs.flatMap(({ run }, place) => [
    { points: run.tallied.curve_from_due, color: color(place), text: run.target + ', from when it was due' },
    { points: run.tallied.curve_from_sent, color: color(place), dash: true, text: run.target + ', from when it was sent' },
  ]).filter((curve) => curve.points.length);
  if (!curves.length) return;
  const end = highest(report.runs.map(({ run }) => run.tallied.from_due.count), 100);
  const place = (quantile) => Math.min(1 / Math.max(1 - quantile, 1e-12), end);
  const all = curves.flatMap((curve) => curve.points.map((p) => p[1])).filter((v) => v > 0);
  const ticks = [1, 2, 10, 100, 1e3, 1e4, 1e5, 1e6].filter((value) => value <= end);
  const names = new Map([[1, '0 %'], [2, '50 %'], [10, '90 %'], [100, '99 %'], [1e3, '99.9 %'], [1e4, '99.99 %'], [1e5, '99.999 %'], [1e6, '99.9999 %']]);
  const p = plot(340, { from: 1, to: end, log: true, label: 'percentile', ticks, format: (v) => names.get(v) },
    { from: lowest(all) * 0.8, to: nice(highest(all)), log: true, label: 'latency, ms' }, 'latency by percentile');
  for (const curve of curves) p.line(curve.points.map(([q, v]) => [place(q), v]), curve.color, curve.dash);
  page.append(card('Latency by percentile',
    'Solid: from when a request was due, which is what a caller sees. Dashed: from when it left. Where they part, a client that waits for its turn would not have seen the delay.',
    legend(curves.map((c) => [c.color, c.text, c.dash ? 'dash' : ''])), p.root));
};

const levelColor = (level) => level === 'down' ? 'l0' : level === 'cpu' ? 'l1' : level === 'gpu(1)' ? 'l2' : 'l3';

const heat = ({ run }) => {
  if (!run.intervals.length) return;
  const bounds = report.heat_bounds_ms, rows = bounds.length - 1, cells = run.intervals.map((i) => i.heat);
  let low = rows, high = 0, most = 1;
  for (const column of cells) column.forEach((count, row) => {
    if (count) { low = Math.min(low, row); high = Math.max(high, row); most = Math.max(most, count); }
  });
  if (low > high) return;
  low = Math.max(1, low); high = Math.max(low + 1, high);
  const end = run.intervals.length * run.interval_s;
  const p = plot(330, { from: 0, to: end, label: 'time', format: clock },
    { from: bounds[low], to: bounds[high + 1], log: true, label: 'latency, ms' }, 'latency over time');
  const width = Math.max(p.px(run.interval_s) - p.px(0), 0.8);
  cells.forEach((column, at) => column.forEach((count, row) => {
    if (!count) return;
    const shown = Math.min(Math.max(row, low), high), y = p.py(bounds[shown + 1]);
    const cell = svg('rect', { x: p.px(at * run.interval_s), y, width: width + 0.3, height: p.py(bounds[shown]) - y,
      fill: `rgba(var(--heat), ${(0.15 + 0.85 * Math.log(1 + count) / Math.log(1 + most)).toFixed(3)})` });
    cell.append(svg('title', {}, `${clock(at * run.interval_s)}: ${count} replies of ${number(bounds[row])} to ${number(bounds[row + 1])} ms`));
    p.root.append(cell);
  }));
  for (const fault of run.faults) {
    const mark = svg('line', { class: 'fault', x1: p.px(fault.at_s), x2: p.px(fault.at_s), y1: p.top, y2: p.height - p.bottom });
    mark.append(svg('title', {}, `${fault.fault} on ${fault.on}`));
    p.root.append(mark);
  }
  const band = svg('svg', { viewBox: `0 0 ${W} 26`, role: 'img', 'aria-label': 'level over time' });
  band.append(svg('text', { x: p.left - 8, y: 17, 'text-anchor': 'end' }, 'level'));
  run.levels.forEach((change, at) => {
    const to = at + 1 < run.levels.length ? run.levels[at + 1].at_s : end, x = p.px(change.at_s);
    const bar = svg('rect', { x, y: 3, width: Math.max(p.px(to) - x, 1), height: 20, fill: `var(--${levelColor(change.level)})` });
    bar.append(svg('title', {}, `${change.level} from ${clock(change.at_s)} to ${clock(to)}`));
    band.append(bar);
  });
  const levels = [...new Set(run.levels.map((change) => change.level))];
  page.append(card('Latency over time: ' + run.target, 'The stronger the colour, the more replies. Dashed lines are faults; the band beneath is the level.',
    p.root, run.levels.length ? band : null,
    run.levels.length ? legend(levels.map((level) => [levelColor(level), `${level} (${clock(run.level_s[level] || 0)})`, 'box'])) : null));
};

const rates = ({ run }) => {
  if (!run.intervals.length) return;
  const end = run.intervals.length * run.interval_s, per = (i, name) => i[name] / run.interval_s;
  const names = [['offered', 'c0', true], ['good', 'c2'], ['refused', 'c1'], ['errors', 'c5']]
    .filter(([name]) => ['offered', 'good'].includes(name) || run.intervals.some((i) => i[name]));
  const top = highest(run.intervals.flatMap((i) => names.map(([name]) => per(i, name))), 1);
  const p = plot(250, { from: 0, to: end, label: 'time', format: clock }, { from: 0, to: nice(top), label: 'requests/s' }, 'rates over time');
  for (const [name, shade, dash] of names) {
    p.line(run.intervals.map((i) => [i.at_s + run.interval_s / 2, per(i, name)]), shade, dash);
  }
  page.append(card('Rates over time: ' + run.target, null,
    legend(names.map(([name, shade, dash]) => [shade, name === 'good' ? 'right and in time' : name, dash ? 'dash' : ''])), p.root));
};

const memory = ({ run }) => {
  if (!run.samples.length) return;
  const processes = new Map(), totals = new Map();
  for (const s of run.samples) {
    const key = s.role + ' ' + s.pid + ' ' + s.started;
    if (!processes.has(key)) processes.set(key, { role: s.role, points: [] });
    processes.get(key).points.push([s.at_s, s.rss_kib / 1024]);
    if (!totals.has(s.at_s)) totals.set(s.at_s, 0);
    totals.set(s.at_s, totals.get(s.at_s) + s.pss_kib / 1024);
  }
  const roles = [...new Set([...processes.values()].map((process) => process.role))];
  const values = [...run.samples.map((s) => s.rss_kib / 1024), ...totals.values()];
  const p = plot(260, { from: 0, to: Math.max(run.measured_s, 1), label: 'time', format: clock },
    { from: 0, to: nice(highest(values)), label: 'memory, MiB' }, 'memory over time');
  for (const process of processes.values()) p.line(process.points, color(roles.indexOf(process.role)));
  const soft = color(roles.length);
  p.line([...totals.entries()], soft, true);
  const judged = run.growth.filter((g) => g.mib_per_hour);
  for (const g of judged) {
    const at = (s) => g.mib_per_hour.intercept + g.mib_per_hour.value * s / 3600;
    p.line([[g.from_s, at(g.from_s)], [g.to_s, at(g.to_s)]], 'bad', true);
  }
  const signed = (value) => (value >= 0 ? '+' : '') + number(value);
  page.append(card('Memory: ' + run.target, 'Resident memory, each process by itself, and of all together what is proportionally theirs (PSS, shared memory counted once). Dashed red: the fitted slope.',
    legend([...roles.map((role, at) => [color(at), role]), [soft, 'all together, PSS', 'dash'], ['bad', 'fitted slope', 'dash']]), p.root,
    table([['process'], ['judged', 'n'], ['MiB per hour', 'n'], ['95 of 100 within', 'n'], ['second half alone', 'n'], ['leak']],
      judged.map((g) => [`${g.role} (${g.pid})`, clock(g.to_s - g.from_s), signed(g.mib_per_hour.value),
        `${signed(g.mib_per_hour.low)} to ${signed(g.mib_per_hour.high)}`,
        g.late_mib_per_hour ? signed(g.late_mib_per_hour.value) : '-',
        el('span', { class: g.is_leak ? 'no' : 'yes' }, g.is_leak ? 'yes' : 'no')])),
    run.drifts.length ? el('p', { class: 'soft' }, 'At rest before and after: ' +
      run.drifts.map((d) => `${d.counter} of ${d.role} ${d.before} and ${d.after}`).join(', ')) : null));
};

const faults = ({ run }) => {
  if (!run.faults.length) return;
  const spreads = [['until it was noticed', run.detected], ['until the level was lower', run.demoted], ['from its end until all was back', run.healed]].filter(([, s]) => s);
  page.append(card('Faults: ' + run.target, 'Noticed, level lower and ended count from the injection, healed from when the fault had ended: as it struck, if it ends its worker, or when what lasts was taken back. ' +
    'A window ends when the level is back, or the time for that is over, and what had piled up is worked off; latencies are those within it.' +
    (run.tallied.faults_not_kept ? ` Of ${run.tallied.faults_not_kept} more faults no window was kept.` : ''),
    spreads.length ? table([['time'], ['faults', 'n'], ['shortest', 'n'], ['median', 'n'], ['p90', 'n'], ['longest', 'n']],
      spreads.map(([name, s]) => [name, number(s.count), ms(s.min_ms), ms(s.p50_ms), ms(s.p90_ms), ms(s.max_ms)])) : null,
    table([['at', 'n'], ['fault'], ['on'], ['noticed', 'n'], ['level lower', 'n'], ['ended', 'n'], ['healed', 'n'], ['answered', 'n'], ['refused', 'n'], ['errors', 'n'], ['p50', 'n'], ['p99', 'n'], ['slowest', 'n']],
      run.faults.map((f, at) => {
        const w = run.fault_windows[f.number ?? at] || {};
        return [clock(f.at_s), f.fault, f.on, orDash(f.detected_ms), orDash(f.demoted_ms), orDash(f.ended_ms),
          f.refused ? 'refused: ' + f.refused : orDash(f.healed_ms), number(w.served), number(w.refused), number(w.errors),
          orDash(w.latency && w.latency.count ? w.latency.p50_ms : null), orDash(w.latency && w.latency.count ? w.latency.p99_ms : null), orDash(w.slowest_ms)];
      }))));
};

// How many processes have taken the place of others up to each moment.
const restarts = ({ run }) => {
  const found = run.restarts || [];
  if (!found.length) return;
  const roles = [...new Set(found.map((restart) => restart.role))], end = Math.max(run.measured_s, 1);
  const p = plot(190, { from: 0, to: end, label: 'time', format: clock },
    { from: 0, to: nice(highest(roles.map((role) => found.filter((r) => r.role === role).length), 1)), label: 'restarts' }, 'restarts over time');
  roles.forEach((role, at) => {
    let count = 0;
    const points = [[0, 0]];
    for (const restart of found.filter((r) => r.role === role)) points.push([restart.at_s, count], [restart.at_s, ++count]);
    p.line([...points, [end, count]], color(at));
  });
  page.append(card(`Restarts: ${run.target}`, 'Worker processes that took the place of others, added up.',
    legend(roles.map((role, at) => [color(at), `${role} (${found.filter((r) => r.role === role).length})`])), p.root));
};

const devices = ({ run }) => {
  for (const name of [...new Set(run.devices.map((sample) => sample.name))]) {
    const samples = run.devices.filter((sample) => sample.name === name);
    const list = [...new Set(samples.map((sample) => sample.device))];
    const top = nice(highest(samples.map((sample) => sample.value), 1e-9));
    const p = plot(170, { from: 0, to: Math.max(run.measured_s, 1), label: 'time', format: clock },
      { from: 0, to: top, label: name.split('_').pop() }, name);
    list.forEach((device, at) => p.line(samples.filter((s) => s.device === device).map((s) => [s.at_s, s.value]), color(at)));
    page.append(card(name.replace('forebay_device_', '').replaceAll('_', ' '), null, legend(list.map((d, at) => [color(at), d])), p.root));
  }
};

const capacity = () => {
  const found = report.capacity;
  if (!found || !found.probes.length) return;
  const probes = [...found.probes].sort((a, b) => a.rate - b.rate);
  const limit = report.profile.objectives.p99_ms, rates = probes.map((probe) => probe.rate);
  const times = probes.flatMap((probe) => [probe.p50_ms, probe.p99_ms]).filter((v) => v > 0);
  const p = plot(320, { from: lowest(rates) * 0.9, to: nice(highest(rates)), log: true, label: 'offered, requests/s' },
    { from: lowest(times) * 0.8, to: nice(highest(times, limit || 0)), log: true, label: 'latency, ms' }, 'latency against offered load');
  if (limit) p.line([[lowest(rates) * 0.9, limit], [nice(highest(rates)), limit]], 'bad', true);
  // A rate that was tried twice counts by its better try.
  const better = [...new Set(rates)].map((rate) =>
    probes.filter((probe) => probe.rate === rate).reduce((one, other) => (other.p99_ms < one.p99_ms ? other : one)));
  p.line(better.map((probe) => [probe.rate, probe.p50_ms]), 'c2');
  p.line(better.map((probe) => [probe.rate, probe.p99_ms]), 'c0');
  for (const probe of probes) {
    p.dot([probe.rate, probe.p99_ms], probe.met ? 'c0' : 'bad', !probe.met, `${number(probe.rate)}/s: p99 ${ms(probe.p99_ms)}, ${number(probe.good_per_s)}/s good`);
  }
  page.append(card('Capacity: ' + (found.rate ? (found.limited_by_harness ? 'at least ' : '') + number(found.rate) + ' requests/s'
      : found.limited_by_harness ? 'unknown' : 'no rate met the objectives'),
    'Full circles met the objectives, hollow ones did not.' + (found.limited_by_harness ? ' More than this the harness could not offer.' : ''),
    legend([['c0', 'p99'], ['c2', 'p50'], ...(limit ? [['bad', 'objective for p99', 'dash']] : [])]), p.root,
    table([['offered/s', 'n'], ['good/s', 'n'], ['p50', 'n'], ['p99', 'n'], ['met']],
      probes.map((probe) => [number(probe.rate), number(probe.good_per_s), ms(probe.p50_ms), ms(probe.p99_ms),
        el('span', { class: probe.met ? 'yes' : 'no' }, probe.met ? 'yes' : 'no')]))));
};

const latencies = () => {
  if (!report.runs.length) return;
  const columns = [['latency'], ['count', 'n'], ['p50', 'n'], ['p90', 'n'], ['p95', 'n'], ['p99', 'n'], ['p99.9', 'n'], ['p99.99', 'n'], ['max', 'n']];
  const rows = report.runs.flatMap(({ run }) => {
    const t = run.tallied, row = (name, s) => [name, number(s.count), ms(s.p50_ms), ms(s.p90_ms), ms(s.p95_ms), ms(s.p99_ms), ms(s.p999_ms), ms(s.p9999_ms), ms(s.max_ms)];
    const prefix = report.runs.length > 1 ? run.target + ': ' : '';
    return [row(prefix + 'from when it was due', t.from_due), row(prefix + 'from when it was sent', t.from_sent),
      row(prefix + 'without faults', t.calm), row(prefix + 'while a fault lasted', t.disturbed),
      ...Object.entries(t.by_level).map(([name, s]) => row(`${prefix}answered at level ${name}`, s)),
      ...Object.entries(t.by_class).map(([name, s]) => row(`${prefix}class ${name}`, s)),
      ...(t.submit ? [row(prefix + 'time to hand a request in', t.submit)] : []),
      row(prefix + 'lag of the harness in sending', t.lag),
      ...(run.beats ? [row(prefix + 'lag of the harness in waking up', run.beats.task)] : [])].filter((cells) => cells[1] !== '0');
  });
  page.append(card('Latencies', null, table(columns, rows)));
};

head();
report.runs.forEach(summary);
capacity();
percentiles();
latencies();
for (const judged of report.runs) { heat(judged); rates(judged); }
for (const judged of report.runs) { faults(judged); restarts(judged); memory(judged); devices(judged); }
page.append(card('How to repeat it', `Seed ${report.seed}; ${report.texts} texts with known answers` +
  (report.texts_left_out ? ` (${report.texts_left_out} left out, too near to others)` : '') +
  `; a vector counts as right here if 1 - cosine is at most ${report.tolerance}; the checker may hold what was sent and answered at a level to less.`, el('code', {}, report.replay)));
