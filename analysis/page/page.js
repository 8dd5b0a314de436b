"use strict";
(() => {
  const source = document.getElementById("runs-data");
  if (!source) return;
  const { columns, rows } = JSON.parse(source.textContent);
  const $ = (id) => document.getElementById(id);
  const [words, method, state, count, back, more] =
    ["filter-words", "filter-method", "filter-state", "runs-count", "runs-back", "runs-more"].map($);
  const body = $("runs-table").tBodies[0];
  const heads = [...$("runs-table").tHead.rows[0].cells];
  const indexOf = Object.fromEntries(columns.map((name, index) => [name, index]));
  // Of a few rows the first are drawn, then all; of many a page at a time, since thousands take a browser seconds.
  const STEP = 100, PAGE = 500;
  let shown = [], begin = 0, limit = STEP, sorted = null, down = false;
  const paged = () => shown.length > 2 * PAGE;
  const number = (value) => value.toLocaleString("en");
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  // What a word may be the beginning of: not numbers, of which almost any would do.
  const texts = rows.map((row) => " " + ["name", "method", "state", "commit", "device"].map((name) => row.cells[indexOf[name]][0])
    .concat(row.error || "").join(" ").replace(/\s+/g, " ").toLowerCase());

  const element = (name, text, parent, attributes = {}) => {
    const made = parent.appendChild(document.createElement(name));
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  function fill(row) {
    const line = document.createElement("tr");
    line.dataset.key = row.key;
    row.cells.forEach(([text], index) => {
      const cell = element(index ? "td" : "th", "", line, index ? {} : { scope: "row" });
      cell.className = heads[index].className;
      if (index) { cell.append(text); }
      else if (row.folder) { element("a", text, cell, { href: row.folder }); }
      else { cell.append(text); }
      if (!index && row.mlflow) element("a", "MLflow", element("small", "", cell), { href: row.mlflow, "aria-label": `MLflow page of ${text}` });
      if (index === indexOf.state) { cell.classList.add("state", text); if (row.error) element("small", row.error, cell); }
    });
    return line;
  }

  function draw() {
    const end = Math.min(begin + limit, shown.length);
    body.replaceChildren(...shown.slice(begin, end).map((index) => fill(rows[index])));
    const part = begin ? `${number(begin + 1)} to ${number(end)}` : `the first ${number(end)}`;
    count.textContent = `${number(shown.length)} of ${number(rows.length)} runs` + (end - begin < shown.length ? `, ${part} shown` : "");
    more.hidden = end >= shown.length;
    more.textContent = paged() ? `Next ${number(Math.min(PAGE, shown.length - end))}` : `Show all ${number(shown.length)}`;
    back.hidden = !begin;
    back.textContent = `Previous ${number(PAGE)}`;
  }

  function turn(to, focused) {
    begin = to;
    draw();
    const row = body.rows[focused];
    row.tabIndex = -1;
    row.focus();
  }

  // What has no value comes last, whichever way the column is sorted.
  function order(one, other) {
    const [a, b] = [one, other].map((index) => rows[index].cells[sorted].at(-1));
    if (a === null || b === null) return (a === null) - (b === null) || one - other;
    const found = typeof a === "number" ? a - b : compare(a, b);
    return (down ? -found : found) || one - other;
  }

  function select() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = [...rows.keys()].filter((index) => wanted.every((word) => texts[index].includes(" " + word) || (word.length > 3 && rows[index].key.startsWith(word)))
      && [[method, "method"], [state, "state"]].every(([box, name]) => !box.value || rows[index].cells[indexOf[name]][0] === box.value));
    if (sorted !== null) shown.sort(order);
    begin = 0;
    limit = paged() ? PAGE : STEP;
    draw();
  }

  heads.forEach((head, index) => head.firstElementChild.addEventListener("click", () => {
    // Numbers begin with the largest, words with the first.
    down = sorted === index ? !down : head.classList.contains("number");
    sorted = index;
    heads.forEach((other) => other.setAttribute("aria-sort", other === head ? (down ? "descending" : "ascending") : "none"));
    select();
  }));
  for (const box of [words, method, state]) box.addEventListener("input", select);
  document.querySelector("form.filters").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    if (paged()) return turn(begin + PAGE, 0);
    const next = limit;
    limit = Infinity;
    turn(0, next);
  });
  back.addEventListener("click", () => turn(Math.max(0, begin - PAGE), 0));
  select();
})();
