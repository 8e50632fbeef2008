"use strict";
// Shows where experiments stand and looks again every ten seconds. Text enters the page as text, never as markup.
(() => {
  const PAUSE = 10000, COLOURS = 6, Z = 1.959963984540054;
  const HEIGHT = 380, LEFT = 52, RIGHT = 14, TOP = 12, BOTTOM = 40;
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  let data = null;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function shape(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  // Numbers by their value, so that 0.05 comes before 0.4; text as people count, so that s2 comes before s10.
  function order(a, b) {
    return a !== "" && b !== "" && Number.isFinite(Number(a)) && Number.isFinite(Number(b))
      ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
  }
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const count = (number) => Math.round(number).toLocaleString("en");
  const short = (path) => path.split(".").pop();
  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;

  // ------------------------------------------------------------------------------------------------- Kaplan–Meier

  // [[step, survival, lower, upper], …]: the product limit with Greenwood's variance on the log-log scale.
  function curve(times) {
    const ordered = [...times].sort((a, b) => a[0] - b[0]);
    const points = [[0, 1, 1, 1]];
    let survival = 1, variance = 0, risk = ordered.length;
    for (let place = 0; place < ordered.length;) {
      const step = ordered[place][0];
      const tied = ordered.slice(place).findIndex((one) => one[0] !== step);
      const here = tied < 0 ? ordered.length - place : tied;
      const events = sum(ordered.slice(place, place + here).map((one) => Number(one[1])));
      if (events) {
        survival *= 1 - events / risk;
        variance += events / (risk * (risk - events));
      }
      points.push([step, survival, ...band(survival, variance)]);
      risk -= here;
      place += here;
    }
    return points;
  }
  function band(survival, variance) {
    if (survival <= 0 || survival >= 1) return [survival, survival];
    const width = Z * Math.sqrt(variance) / Math.abs(Math.log(survival));
    return [survival ** Math.exp(width), survival ** Math.exp(-width)];
  }
  // As R's: a curve that stays at 0.5 for a while crosses it in the middle of that stretch.
  function median(points) {
    const reached = points.find((point) => point[1] <= 0.5 + 1e-8);
    if (!reached) return "not reached";
    const below = points.find((point) => point[1] < 0.5 - 1e-8) ?? points.at(-1);
    return count((reached[0] + below[0]) / 2);
  }

  // ------------------------------------------------------------------------------------------------------ drawing

  function groups(factor) {
    const place = data.factors.indexOf(factor), found = new Map();
    for (const cell of data.cells) {
      const name = cell.values[place] || "unknown";
      found.set(name, [...(found.get(name) ?? []), ...cell.times]);
    }
    return [...found].filter(([, times]) => times.length).sort(([a], [b]) => order(a, b));
  }
  const DASHES = ["", "7 4", "2 3", "7 3 2 3", "12 4", "12 4 2 4"];

  // A scale for numbers; for kinds, colours that also differ by their dashes.
  function styles(names) {
    if (names.every((name) => name !== "" && Number.isFinite(Number(name)))) {
      return names.map((_, place) => {
        const at = 4 * place / Math.max(names.length - 1, 1), stop = Math.min(Math.floor(at), 3);
        return { stroke: `color-mix(in srgb, var(--s${stop + 1}) ${100 * (at - stop)}%, var(--s${stop}))` };
      });
    }
    return names.map((_, place) => ({ stroke: `var(--c${place % COLOURS})`, "stroke-dasharray": DASHES[place % DASHES.length] }));
  }

  function steps(points, x, y, column) {
    return points.map((point, place) => place ? `H${x(point[0])}V${y(point[column])}` : `M${x(point[0])} ${y(point[column])}`).join("");
  }
  function ribbon(points, x, y) {
    const back = points.slice(0, -1).reverse().map((point) => `V${y(point[2])}H${x(point[0])}`).join("");
    return `${steps(points, x, y, 3)}${back}Z`;
  }
  function draw() {
    const factor = $("factor").value, found = groups(factor), drawing = $("curves");
    const width = Math.max(drawing.clientWidth, 300);
    const longest = Math.max(1, ...found.flatMap(([, times]) => times.map((one) => one[0])));
    const x = (step) => LEFT + step / longest * (width - LEFT - RIGHT);
    const y = (share) => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const parts = [];
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share) }),
        shape("text", { x: LEFT - 8, y: y(share) + 4, "text-anchor": "end" }, String(share)));
    }
    for (const part of [0, 0.25, 0.5, 0.75, 1]) {
      parts.push(shape("text", { x: x(part * longest), y: HEIGHT - BOTTOM + 18, "text-anchor": part === 1 ? "end" : "middle" }, count(part * longest)));
    }
    parts.push(shape("text", { x: (LEFT + width) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "step"));
    const curves = found.map(([, times]) => curve(times)), style = styles(found.map(([name]) => name));
    curves.forEach((points, place) => parts.push(shape("path", { class: "band", fill: style[place].stroke, d: ribbon(points, x, y) })));
    curves.forEach((points, place) => parts.push(shape("path", { class: "curve", ...style[place], d: steps(points, x, y, 1) })));
    drawing.replaceChildren(...parts);
    drawing.setAttribute("aria-label", `Survival by ${short(factor)}: ` +
      found.map(([name, times], place) => `${name}: ${times.length} runs, median ${median(curves[place])}`).join("; "));
    $("legend").replaceChildren(element("span", { class: "soft" }, `${short(factor)}:`), ...found.map(([name], place) => {
      const key = shape("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, shape("line", { x1: 0, x2: 26, y1: 5, y2: 5, ...style[place] }));
      return element("span", {}, key, name);
    }));
  }

  // ------------------------------------------------------------------------------------------------------- tables

  const COLUMNS = ["ended", "events", "median", "survival", "replies read", "tokens/s a run", "episodes"];
  const WORDS = new Set(["survival", "episodes"]);

  function cellRow(cell) {
    const done = sum(Object.entries(cell.endings).filter(([name]) => !UNFINISHED.has(name)).map(([, runs]) => runs));
    const points = curve(cell.times);
    const replies = sum(Object.values(cell.replies));
    const read = (cell.replies.ok ?? 0) + (cell.replies.repaired ?? 0);
    const others = Object.entries(cell.replies).filter(([, steps]) => steps).map(([name, steps]) => `${name} ${percent(steps / replies)}`);
    const share = replies ? percent(read / replies) : "–";
    const number = (text, extra = {}) => element("td", { class: "number", ...extra }, text);
    return element("tr", {},
      ...cell.values.map((value) => element("td", {}, value || "unknown")),
      number(`${count(done)} of ${count(sum(Object.values(cell.endings)))}`),
      number(count(sum(cell.times.map((one) => Number(one[1]))))),
      number(cell.times.length ? median(points) : "–"),
      element("td", {}, spark(points)),
      number(share, { title: others.join(", "), ...(replies && read / replies < 0.9 ? { class: "number bad" } : {}) }),
      number(cell.seconds ? count(cell.tokens / cell.seconds) : "–"),
      ...(embedded() ? [] : [element("td", {}, begun(cell) ? episodes(cell) : "–")]));
  }
  const UNFINISHED = new Set(["running", "failed", "damaged", "not begun"]);

  const begun = (cell) => Object.keys(cell.endings).some((name) => name !== "not begun");

  function episodes(cell) {
    const where = new URLSearchParams();
    data.factors.forEach((factor, place) => where.append(factor === "model" ? factor : `parameter:${factor}`, cell.values[place]));
    return element("a", { href: `./#where&${where}` }, "read");
  }
  function spark(points) {
    const longest = points.at(-1)[0] || 1;
    const d = steps(points, (step) => 100 * step / longest, (share) => 20 * (1 - share) + 1, 1);
    return shape("svg", { class: "spark", viewBox: "0 0 100 22", preserveAspectRatio: "none", "aria-hidden": "true" }, shape("path", { d }));
  }
  function experiment(one) {
    const states = [["running", "running"], ["waiting", "waiting in jobs"], ["interrupted", "interrupted"],
      ["open", "not begun"], ["unknown", "unknown (the queue was not asked)"]].map(([key, label]) => [one[key], label]);
    states.unshift(...Object.entries(one.endings).map(([ending, runs]) => [runs, ending]));
    states.push([Object.keys(one.failed).length, "failed"], [Object.keys(one.damaged).length, "damaged"]);
    const rest = [];
    if (one.tokens_s) rest.push(`${count(one.tokens_s)} tokens/s`);
    if (one.eta_s) rest.push(`about ${duration(one.eta_s)} to go`);
    const jobs = one.jobs.map((job) => element("li", {}, `${job.slurm_job} ${job.state} ${job.reason} ${job.model}: ${runs(job.runs)}`));
    const lost = one.lost.map((job) => element("li", {}, `${job.job}: ${job.ended}; left ${runs(job.unfinished)}`));
    return element("article", { class: "experiment" },
      element("h3", {}, one.name),
      element("progress", { max: Math.max(one.runs, 1), value: one.done, "aria-label": `${one.done} of ${one.runs} runs done` }),
      element("p", {}, `${count(one.done)} of ${runs(one.runs)} done${rest.length ? `; ${rest.join(", ")}` : ""}`),
      element("p", { class: "soft" }, states.filter(([runs]) => runs).map(([runs, label]) => `${count(runs)} ${label}`).join(" · ")),
      ...one.halts.map((halt) => element("p", { class: "warning" }, `${halt.model} is stopped: ${halt.reason}`)),
      ...one.adaptive.map((line) => element("p", { class: "soft" }, line)),
      ...(one.queue_problem ? [element("p", { class: "soft" }, `The queue could not be asked: ${one.queue_problem}`)] : []),
      ...folded("live job", "live jobs", jobs), ...folded("job that ended and left runs", "jobs that ended and left runs", lost));
  }
  const runs = (number) => `${count(number)} ${number === 1 ? "run" : "runs"}`;

  function folded(one, several, items) {
    if (!items.length) return [];
    return [element("details", {}, element("summary", {}, `${items.length} ${items.length === 1 ? one : several}`), element("ul", {}, ...items))];
  }
  function duration(seconds) {
    if (seconds < 90) return `${count(seconds)} s`;
    return seconds < 5400 ? `${count(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  }

  // ------------------------------------------------------------------------------------------------------ looking

  const embedded = () => $("embedded") && JSON.parse($("embedded").textContent);

  function show() {
    $("experiments").replaceChildren(...data.status.map(experiment));
    const chosen = $("factor").value || data.factors.find((name) => /\.p_/.test(name)) || data.factors[0];
    $("factor").replaceChildren(...data.factors.map((name) => new Option(short(name), name, false, name === chosen)));
    draw();
    const columns = COLUMNS.filter((name) => name !== "episodes" || !embedded());
    const head = element("tr", {}, ...data.factors.map((name) => element("th", { scope: "col" }, short(name))),
      ...columns.map((name) => element("th", { scope: "col", ...(WORDS.has(name) ? {} : { class: "number" }) }, name)));
    const byValues = (a, b) => a.values.map((value, place) => order(value, b.values[place])).find(Boolean) ?? 0;
    $("cells").replaceChildren(element("thead", {}, head), element("tbody", {}, ...[...data.cells].sort(byValues).map(cellRow)));
    $("failures").hidden = !data.reasons.length;
    $("reasons").replaceChildren(...data.reasons.map(([reason, runs]) => element("li", {}, `${count(runs)} × ${reason}`)));
    $("updated").textContent = `as of ${new Date().toLocaleTimeString()}`;
  }
  async function look() {
    try {
      const answer = await fetch("api/overview");
      if (!answer.ok) throw new Error(await answer.text());
      data = await answer.json();
      show();
      $("problem").hidden = true;
    } catch (error) {
      $("problem").textContent = `The last look failed (${error.message}). Is the command still running?`;
      $("problem").hidden = false;
    }
    const live = !data || data.status.some((one) => one.done < one.runs);
    if (live) setTimeout(look, PAUSE);
  }
  document.addEventListener("DOMContentLoaded", async () => {
    $("factor").addEventListener("change", draw);
    addEventListener("resize", () => data && draw());
    data = embedded();
    if (data) show(); else await look();
    document.documentElement.dataset.ready = "yes";
  });
})();
