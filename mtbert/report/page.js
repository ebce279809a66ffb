// The browser of predictions, and the choice of a run in the error analysis. The browser's data are in the element #examples; see
// mtbert/report/predictions.py.
"use strict";

const tasks = JSON.parse(document.getElementById("examples").textContent);
const control = Object.fromEntries(
  [...document.querySelectorAll("#browser [name]")].map((element) => [element.name, element])
);
const PAGE = 25; // rows added at a time
let limit = PAGE;

const sum = (values) => values.reduce((total, value) => total + value, 0);

function pearson(truth, predicted) {
  const mean = (values) => sum(values) / values.length;
  const [a, b] = [truth, predicted].map((values) => values.map((value) => value - mean(values)));
  const product = (x, y) => sum(x.map((value, index) => value * y[index]));
  return product(a, b) / Math.sqrt(product(a, a) * product(b, b)); // NaN where one of them is constant
}

function options(select, pairs) {
  const before = select.value || select.dataset.first;
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

// What depends on the task: its runs, its labels, and whether labels are scores.
function taskChosen() {
  const task = tasks[control.task.value];
  const runs = Object.keys(task.runs).map((run) => [run, run]);
  const labels = [["", "any"], ...task.labels.map((label, number) => [String(number), label])];
  options(control.run, runs);
  options(control.other, [["", "no other run"], ...runs]);
  options(control.truth, labels);
  options(control.predicted, labels);
  for (const element of document.querySelectorAll("[data-labels]")) {
    element.hidden = (element.dataset.labels === "scores") === task.labels.length > 0;
  }
}

// Functions of an example's index: what each filter and order reads.
function view() {
  const task = tasks[control.task.value];
  const scored = task.labels.length === 0;
  const run = task.runs[control.run.value];
  const other = task.runs[control.other.value];
  const margin = Number(control.margin.value);
  const error = (index, of = run) => Math.abs(task.truth[index] - of.predicted[index]);
  const apart = (index) => Math.abs(run.predicted[index] - other.predicted[index]);
  const exceeds = (difference) => (scored ? difference >= margin : difference > 0);
  // Of a labelled task: how sure the run is of a wrong label; below zero, how sure of the true one.
  const badness = (index) => (scored ? error(index) : (error(index) > 0 ? 1 : -1) * run.confidence[index]);
  return { task, scored, run, other, error, apart, exceeds, badness };
}

function chosen({ task, run, other, error, apart, exceeds, badness }) {
  const words = (index) => sum(task.texts.map((texts) => texts[index].split(/\s+/).length));
  const [least, most] = [control.least, control.most].map((input) => (input.value === "" ? null : Number(input.value)));
  const text = control.contains.value.toLowerCase();
  const shown = {
    all: () => true,
    wrong: (index) => exceeds(error(index)),
    right: (index) => !exceeds(error(index)),
    disagree: (index) => other && exceeds(apart(index)),
  }[control.show.value];
  const same = (select, value) => select.value === "" || Number(select.value) === value;
  const found = task.truth.map((_, index) => index).filter(
    (index) =>
      shown(index) &&
      same(control.truth, task.truth[index]) &&
      same(control.predicted, run.predicted[index]) &&
      (least === null || words(index) >= least) &&
      (most === null || words(index) <= most) &&
      task.texts.some((texts) => texts[index].toLowerCase().includes(text))
  );
  const key = {
    file: (index) => index,
    worst: (index) => -badness(index),
    best: badness,
    apart: (index) => (other ? -apart(index) : index),
    short: words,
    long: (index) => -words(index),
  }[control.order.value];
  return found.sort((a, b) => key(a) - key(b) || a - b);
}

function metric(task, run, rows) {
  const [truth, predicted] = [task.truth, run.predicted].map((values) => rows.map((index) => values[index]));
  const scored = task.labels.length === 0;
  const value = scored ? pearson(truth, predicted) : sum(truth.map((label, k) => label === predicted[k])) / rows.length;
  return `${scored ? "Pearson’s r" : "accuracy"} ${Number.isFinite(value) ? value.toFixed(3) : "undefined"}`;
}

function cell(text, kind, className = "", scope = "col") {
  const element = document.createElement(kind);
  element.textContent = text;
  element.className = className;
  if (kind === "th") element.scope = scope;
  return element;
}

function row(cells) {
  const element = document.createElement("tr");
  element.append(...cells);
  return element;
}

function update() {
  const now = view();
  const { task, scored, run, other, error, exceeds } = now;
  const rows = chosen(now);
  const runs = [[control.run.value, run], ...(other ? [[control.other.value, other]] : [])];
  const label = (value) => (scored ? value.toFixed(2) : task.labels[value]);
  const prediction = (of, index) =>
    cell(
      scored ? label(of.predicted[index]) : `${label(of.predicted[index])} ${(of.confidence[index] / 10).toFixed(1)}%`,
      "td",
      `number ${exceeds(error(index, of)) ? "wrong" : "right"}`
    );
  const scores = runs.map(([name, of]) => `${name}: ${metric(task, of, rows)}`).join(" · ");
  document.getElementById("count").textContent =
    `${rows.length.toLocaleString("en")} of ${task.truth.length.toLocaleString("en")} examples` +
    (rows.length ? ` · ${scores}` : "") +
    (control.show.value === "disagree" && !other ? " · choose a run to compare with" : "");
  const texts = task.texts.length > 1 ? ["Sentence 1", "Sentence 2"] : ["Sentence"];
  const head = ["Row", ...texts].map((text) => cell(text, "th"));
  const numbers = ["True", ...runs.map(([name]) => name)].map((text) => cell(text, "th", "number"));
  document.getElementById("head").replaceChildren(row([...head, ...numbers]));
  document.getElementById("rows").replaceChildren(
    ...rows.slice(0, limit).map((index) =>
      row([
        cell(task.rows[index], "th", "", "row"),
        ...task.texts.map((of) => cell(of[index], "td", "text")),
        cell(label(task.truth[index]), "td", "number"),
        ...runs.map(([, of]) => prediction(of, index)),
      ])
    )
  );
  document.getElementById("more").hidden = rows.length <= limit;
}

document.getElementById("browser").addEventListener("input", (event) => {
  if (event.target === control.task) taskChosen();
  limit = PAGE;
  update();
});
document.getElementById("more").addEventListener("click", () => {
  limit += PAGE;
  update();
});
options(control.task, Object.entries(tasks).map(([name, task]) => [name, task.title]));
taskChosen();
document.getElementById("browser").hidden = false;
update();

// The error analysis: the panels of the chosen run. Without scripts, those of all runs are shown.
const errorsOf = document.getElementById("errors-of");
function showPanels() {
  const run = errorsOf.querySelector("select").value;
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.dataset.run !== run;
}
errorsOf.addEventListener("input", showPanels);
errorsOf.hidden = false;
showPanels(); // a reload may have kept another choice
