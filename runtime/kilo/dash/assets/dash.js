"use strict";
// Draws what /api answers. No figure is computed here: queries, limits and order are the server's.
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const find = (id) => document.getElementById(id);
const LIVE_MS = 15000;
let pages = [], tenants = [], drawing = 0;
const plots = new Map();
const clear = () => { plots.forEach((plot) => plot.destroy()); plots.clear(); };

const scale = (value, steps) => {
  for (const [size, unit] of steps) if (Math.abs(value) >= size) return trim(value / size) + unit;
  return trim(value);
};
const trim = (value) => (value === 0 ? "0" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
const bytes = [[2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"], [0, " B"]];
const counts = [[1e9, " G"], [1e6, " M"], [1e4, " k"]].map(([size, unit]) => [size === 1e4 ? 1e3 : size, unit]);
const seconds = [[172800, "d"], [7200, "h"], [120, "min"], [1, "s"], [0, "ms"]];
const show = (value, unit) => {
  if (value === null || value === undefined) return "–";
  if (unit === "percentunit") return trim(value * 100) + " %";
  if (unit === "bytes") return scale(value, bytes);
  if (unit === "Bps") return scale(value, bytes) + "/s";
  if (unit === "ms") return show(value / 1000, "s");
  if (unit === "s") {
    const sizes = { d: 86400, h: 3600, min: 60, s: 1, ms: 0.001 };
    for (const [from, name] of seconds) if (Math.abs(value) >= from) return trim(value / sizes[name]) + " " + name;
  }
  const count = Math.abs(value) >= 1e4 ? scale(value, counts) : trim(value);
  return unit === "ops" || unit === "reqps" ? count + " /s" : count;
};

const read = async (path) => {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  return body;
};
const problem = (text) => { find("problem").hidden = !text; find("problem").textContent = text || ""; };
const chosen = () => location.hash.slice(1) || "fleet";

const table = (heads, rows) => element("table", {},
  element("thead", {}, element("tr", {}, ...heads.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
  element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell, place) =>
    element("td", { class: heads[place][1] }, cell))))));

const tile = (value, name) => element("section", {}, element("b", {}, value), element("span", {}, name));

const drawFleet = async () => {
  const fleet = await read("api/fleet");
  find("stage").textContent = fleet.stage;
  document.title = `Kilo ${fleet.stage}`;
  const alerts = fleet.alerts.length
    ? table([["alert", ""], ["severity", ""], ["about", ""], ["runbook", ""]], fleet.alerts.map((alert) => [
        alert.name, element("span", { class: alert.severity }, alert.severity), alert.about,
        element("a", { href: `runbooks/${alert.name}`, "aria-label": `Runbook of ${alert.name}` }, "open")]))
    : element("p", {}, "Nothing fires.");
  const worst = table(
    [["tenant", ""], ["objective", ""], ["promised", "number"], ["left of 30 days", "number"], ["left of the month", "number"],
      ["burn, 1 h", "number"], ["burn, 6 h", "number"], ["gone in", "number"]],
    fleet.worst.map((each) => {
      const link = element("a", { href: "#tenant-objectives" }, each.tenant);
      link.addEventListener("click", () => { find("tenant").value = each.tenant; });
      const promise = show(each.target, "percentunit") + (each.threshold_ms ? ` < ${each.threshold_ms} ms` : "");
      const times = (burn) => (burn === null ? "–" : `${burn.toFixed(1)}×`);
      return [link, each.objective, promise, show(each.left_30d, "percentunit"), show(each.left_month, "percentunit"),
        times(each.burn_1h), times(each.burn_6h), show(each.exhausted_in_seconds, "s")];
    }));
  find("note").textContent = "What fires, and the objectives with the least budget left.";
  find("content").replaceChildren(
    element("div", { class: "tiles" }, tile(String(fleet.alerts.length), "alerts fire"), tile(String(fleet.tenants), "tenants"),
      tile(show(fleet.requests, "reqps"), "requests")),
    element("section", { class: "wide", tabindex: "0", "aria-label": "Alerts" }, element("h3", {}, "What fires?"), alerts),
    element("section", { class: "wide", tabindex: "0", "aria-label": "Objectives" }, element("h3", {}, "Whose budget is least?"), worst));
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let marks = [];
const drawMarks = (plot) => {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour("--muted");
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const mark of marks) {
    const x = Math.round(plot.valToPos(mark.at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
};
const listMarks = (more) => element("section", { class: "wide", id: "marks", tabindex: "0", "aria-label": "Changes" },
  element("h3", {}, "What changed?"), marks.length
    ? table([["when", ""], ["what", ""], ["which", ""]], marks.toReversed().map((mark) =>
        [new Date(mark.at * 1000).toLocaleString(), mark.name, mark.text]))
    : element("p", {}, "Nothing in this time."),
  ...(more > 0 ? [element("p", {}, `${more} earlier ones are not shown.`)] : []));

const drawPanel = (box, panel, data) => {
  box.querySelector(".legend")?.remove();
  plots.get(box)?.destroy();
  plots.delete(box);
  const place = box.querySelector(".plot, .none");
  if (!data.lines.length) {
    place.replaceWith(element("div", { class: "none" }, "None in this time."));
    return;
  }
  const holder = element("div", { class: "plot", role: "img",
    "aria-label": `${panel.title} ${data.lines.map((line) => `${line.label}: ${show(last(line), panel.unit)}`).join("; ")}` });
  place.replaceWith(holder);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot({
    width: holder.clientWidth, height: 190, legend: { show: false }, cursor: { y: false },
    scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
    axes: [{ ...axis, values: [[86400, "{MMM} {D}", null, null, null, null, null, null, 0], [60, "{HH}:{mm}", null, null, null, null, null, null, 0], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 0]], space: 60, size: 30 },
      { ...axis, size: 72, values: (_, marks) => marks.map((mark) => show(mark, panel.unit)) }],
    hooks: { draw: [drawMarks] },
    series: [{}, ...data.lines.map((line, index) => ({ label: line.label, stroke: colour(`--l${index}`), width: 1.75,
      points: { show: line.values.filter((value) => value !== null).length < 3 } }))],
  }, [data.times, ...data.lines.map((line) => line.values)], holder);
  plots.set(box, plot);
  const legend = element("ul", { class: "legend" }, ...data.lines.map((line, index) => {
    const mark = element("i");
    mark.style.background = colour(`--l${index}`);
    return element("li", {}, mark, element("span", {}, line.label), element("b", {}, show(last(line), panel.unit)));
  }));
  if (data.more > 0) legend.append(element("li", { class: "more" }, `${data.more} smaller ones are not drawn`));
  box.append(legend);
};
const last = (line) => line.values.findLast((value) => value !== null) ?? null;

const drawPage = async (page, turn) => {
  const tenant = tenants.includes(find("tenant").value) ? find("tenant").value : "";
  find("note").textContent = !page.tenants ? "Of the whole stage." : tenant ? `Of ${tenant}.` : "Of all tenants.";
  let boxes = [...find("content").querySelectorAll("section[data-panel]")];
  if (find("content").dataset.page !== page.file || boxes.length !== page.panels.length) {
    boxes = page.panels.map((panel, index) => element("section", { "data-panel": index }, element("h3", {}, panel.title),
      element("div", { class: "none" }, "…")));
    clear();
    find("content").replaceChildren(element("div", { id: "extra" }), element("div", { class: "grid" }, ...boxes),
      element("div", { id: "changes" }));
    find("content").dataset.page = page.file;
  }
  const query = new URLSearchParams({ range: find("range").value, ...(page.tenants && tenant ? { tenant } : {}) });
  const changes = read(`api/marks?${new URLSearchParams({ range: find("range").value })}`);
  const answers = page.panels.map((_, index) => read(`api/panel/${page.file}/${index}?${query}`));
  // The engine is asked for them, which takes longer than the rest.
  const standings = page.file === GOALS ? drawGoals(turn) : null;
  const changed = await changes;
  if (turn !== drawing) return;
  marks = changed.marks;
  find("changes").replaceChildren(listMarks(changed.more));
  for (const [index, answer] of answers.entries()) {
    const data = await answer;
    if (turn !== drawing) return;
    drawPanel(boxes[index], page.panels[index], data);
  }
  await standings;
};

const GOALS = "goals";
const drawGoals = async (turn) => {
  const { goals } = await read("api/goals");
  if (turn !== drawing) return;
  const kinds = { met: "met", missed: "page", unknown: "ticket" };
  const when = goals[0].past.map((each) => [each.when, "number"]);
  find("extra").replaceChildren(element("section", { class: "wide", id: "goals", tabindex: "0", "aria-label": "Goals" },
    element("h3", {}, "How do the goals stand?"),
    table([["goal", "text"], ["verdict", ""], ["figure", "number"], ["bound", "number"], ...when, ["why, or from where", "text"]],
      goals.map((each) => [each.asks, element("span", { class: kinds[each.verdict] }, each.verdict), each.shown, each.bound,
        ...each.past.map((one) => one.shown), each.reason || each.source]))));
};

const drawEvent = async (fingerprint, turn) => {
  find("note").textContent = "What the platform has stored of an event, and the spans that were kept between.";
  if (find("content").dataset.page !== "event") {
    const input = element("input", { id: "fingerprint", placeholder: "acme/order-42", maxlength: 255, size: 40, spellcheck: "false" });
    const form = element("form", { class: "wide" }, element("label", {}, "Fingerprint ", input), element("button", {}, "Show"));
    form.addEventListener("submit", (sent) => { sent.preventDefault(); location.hash = `event/${encodeURIComponent(input.value.trim())}`; });
    clear();
    find("content").replaceChildren(form, element("div", { id: "life" }));
    find("content").dataset.page = "event";
  }
  if (document.activeElement !== find("fingerprint")) find("fingerprint").value = fingerprint;
  if (!fingerprint) { find("life").replaceChildren(); return; }
  const tenant = tenants.includes(find("tenant").value) ? { tenant: find("tenant").value } : {};
  const event = await read(`api/event?${new URLSearchParams({ fingerprint, ...tenant })}`);
  if (turn !== drawing) return;
  find("life").replaceChildren(element("section", { class: "wide", tabindex: "0", "aria-label": "Steps" },
    element("h3", {}, `${event.fingerprint}, first seen ${new Date(event.first).toLocaleString()}`),
    table([["after", "number"], ["where", ""], ["what", ""], ["details", ""]], event.steps.map((step) =>
      [`${step.after.toFixed(3)} s`, step.where, step.what, step.details]))));
};

const draw = async () => {
  const turn = ++drawing, file = chosen(), page = pages.find((each) => each.file === file);
  const event = file.split("/")[0] === "event", name = page ? file : event ? "event" : "fleet";
  document.querySelectorAll("nav a").forEach((link) =>
    link.hash === `#${name}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current"));
  find("title").textContent = page ? page.title : event ? "Event" : "Fleet";
  try {
    if (page) await drawPage(page, turn);
    else if (event) await drawEvent(decodeURIComponent(file.slice("event/".length)), turn);
    else { clear(); delete find("content").dataset.page; await drawFleet(); }
    problem("");
  } catch (error) { problem(error.message); }
  if (turn === drawing) document.body.dataset.drawn = name;
};

const start = async () => {
  try {
    ({ pages, tenants } = await read("api/pages"));
  } catch (error) { problem(error.message); return; }
  find("tenants").replaceChildren(...tenants.map((tenant) => element("option", { value: tenant })));
  find("pages").replaceChildren(...[{ file: "fleet", title: "Fleet" }, ...pages, { file: "event", title: "Event" }].map((page) =>
    element("li", {}, element("a", { href: `#${page.file}` }, page.title))));
  addEventListener("hashchange", draw);
  find("range").addEventListener("change", draw);
  find("tenant").addEventListener("change", draw);
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() =>
    plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: 190 })), 100); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  setInterval(() => { if (find("live").checked && !document.hidden) draw(); }, LIVE_MS);
  await draw();
};
start();
