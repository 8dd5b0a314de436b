"use strict";
(() => {
  const source = document.getElementById("runs-data");
  if (!source) return;
  const { columns, rows } = JSON.parse(source.textContent);
  const $ = (id) => document.getElementById(id);
  const [words, method, state, count, more] =
    ["filter-words", "filter-method", "filter-state", "runs-count", "runs-more"].map($);
  const body = $("runs-table").tBodies[0];
  const heads = [...$("runs-table").tHead.rows[0].cells];
  const indexOf = Object.fromEntries(columns.map((name, index) => [name, index]));
  const STEP = 100;
  let shown = [], limit = STEP, sorted = null, down = false;
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
    body.replaceChildren(...shown.slice(0, limit).map((index) => fill(rows[index])));
    const drawn = Math.min(limit, shown.length);
    count.textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs` + (drawn < shown.length ? `, the first ${drawn} shown` : "");
    more.hidden = drawn >= shown.length;
    more.textContent = `Show all ${shown.length.toLocaleString("en")}`;
  }

  // What has no value comes last, whichever way the column is sorted.
  function order(one, other) {
    const [a, b] = [one, other].map((index) => rows[index].cells[sorted].at(-1));
    if (a === null || b === null) return (a === null) - (b === null) || one - other;
    const found = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return (down ? -found : found) || one - other;
  }

  function select() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = [...rows.keys()].filter((index) => wanted.every((word) => texts[index].includes(" " + word) || (word.length > 3 && rows[index].key.startsWith(word)))
      && [[method, "method"], [state, "state"]].every(([box, name]) => !box.value || rows[index].cells[indexOf[name]][0] === box.value));
    if (sorted !== null) shown.sort(order);
    limit = STEP;
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
    const next = limit;
    limit = Infinity;
    draw();
    const row = body.rows[next];
    row.tabIndex = -1;
    row.focus();
  });
  select();
})();
