"use strict";
// Draws the figures that the page carries as JSON, and makes tables sort.
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const config = { displaylogo: false, responsive: true, plotlyServerURL: "", showLink: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  const faded = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, "0");

  function coloured(trace, theme) {
    const shade = trace.meta[theme];
    const copy = { ...trace };
    if (trace.meta.role === "heat") {
      copy.colorscale = theme === "dark"
        ? [[0, "#b8860b"], [0.5, "#1e2024"], [1, "#7a6fd6"]]
        : [[0, "#e08214"], [0.5, "#ffffff"], [1, "#8073ac"]];
      return copy;
    }
    if (trace.meta.role === "band") copy.fillcolor = faded(shade, 0.16);
    if (trace.meta.role === "area") copy.fillcolor = faded(shade, 0.6);
    copy.line = { ...trace.line, color: shade };
    if (trace.marker) copy.marker = { ...trace.marker, color: shade };
    for (const axis of ["error_x", "error_y"]) if (trace[axis]) copy[axis] = { ...trace[axis], color: shade };
    return copy;
  }

  function layoutFor(figure, narrow, small) {
    const ink = css("--ink"), line = css("--line");
    const axis = (given) => ({ ...given, title: { text: small ? given.title.text.replace(" (", "<br>(") : given.title.text }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true });
    const entries = figure.data.filter((trace) => trace.showlegend !== false).length;
    const rows = figure.layout.showlegend ? Math.ceil(entries / (narrow ? 1 : 3)) : 0;
    const shapes = (figure.layout.shapes || []).map((shape) => ({ ...shape, line: { ...shape.line, color: css("--soft") } }));
    return { ...figure.layout, shapes, xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      legend: { ...figure.layout.legend, orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
      font: { color: ink, family: css("--font"), size: narrow ? 12 : 14 },
      margin: { l: 56, r: 16, t: narrow ? 12 : 30, b: 56 + 22 * rows }, hovermode: "closest", dragmode: narrow ? false : "zoom",
      height: figure.layout.height + 22 * rows };
  }

  function draw(holder, figure, bands) {
    const theme = window.currentTheme();
    const data = figure.data.map((trace) => {
      const copy = coloured(trace, theme);
      if (trace.meta.role === "band" && bands !== undefined) copy.visible = bands;
      return copy;
    });
    const narrow = holder.clientWidth < 560;
    const layout = layoutFor(figure, narrow, holder.clientWidth < 380);
    holder.style.minHeight = `${layout.height}px`;  // kept while a printer measures the page
    Plotly.react(holder, data, layout, { ...config, displayModeBar: narrow ? false : "hover" });
    holder.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
  }

  function prepare(block) {
    const figures = read(block.dataset.figures);
    const holder = block.querySelector(".plot");
    const first = block.querySelector("[data-choice='first']"), second = block.querySelector("[data-choice='second']");
    const bands = block.querySelector("[data-choice='bands']");
    const chosen = () => figures[first ? JSON.stringify([first.value, second.value]) : "[]"];
    let asked;

    function offer() {
      const keys = Object.keys(figures).map((key) => JSON.parse(key));
      const entries = keys.filter(([group]) => group === first.value).map(([, among]) => among);
      const kept = entries.includes(second.value) ? second.value : entries[0];
      second.replaceChildren(...entries.map((entry) => new Option(entry, entry)));
      second.value = kept;
      second.closest("label").hidden = entries.length < 2;
    }

    function show() {
      const figure = chosen();
      const band = figure.figure.data.filter((trace) => trace.meta.role === "band");
      if (bands) {
        bands.closest("label").hidden = !band.length;
        if (asked === undefined) bands.checked = band.some((trace) => trace.visible);
      }
      block.querySelector(".title").textContent = figure.title;
      block.querySelector("figcaption").textContent = figure.description;
      holder.setAttribute("aria-label", `${figure.title}. ${figure.description}`);
      draw(holder, figure.figure, bands ? bands.checked : undefined);
    }

    if (first) {
      offer();
      first.addEventListener("change", () => { offer(); show(); });
      second.addEventListener("change", show);
    }
    if (bands) bands.addEventListener("change", () => { asked = true; show(); });
    document.addEventListener("themechange", show);
    addEventListener("resize", show);
    show();
  }

  function sortBy(table, index, header) {
    const falling = header.getAttribute("aria-sort") === "ascending";
    const body = table.tBodies[0];
    const value = (row) => row.cells[index].dataset.sort ?? row.cells[index].textContent;
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      const [p, q] = [parseFloat(x), parseFloat(y)];
      const numeric = a.cells[index].dataset.sort !== undefined && b.cells[index].dataset.sort !== undefined;
      if (numeric && (Number.isNaN(p) || Number.isNaN(q))) return Number.isNaN(p) - Number.isNaN(q);
      const order = numeric ? p - q : x.localeCompare(y, undefined, { numeric: true });
      return falling ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-figures]").forEach(prepare);
    document.querySelectorAll("table.sortable").forEach((table) => {
      table.querySelectorAll("th button").forEach((button, index) =>
        button.addEventListener("click", () => sortBy(table, index, button.closest("th"))));
    });
    document.documentElement.dataset.ready = "yes";
  });
})();
