// The review desk: decisions on labels by keys or buttons, kept in the browser, given as a file.
"use strict";

const COLUMNS = ["index", "given_label", "decision", "label", "name"];
const SAID = { keep: () => "kept", change: (label) => `now ${label}`, drop: () => "dropped" };
const KEYS = {
  a: "accept", k: "keep", c: "class", d: "drop", n: "next", u: "undo",
  ArrowRight: "right", ArrowLeft: "left",
};

// Spreadsheets take some texts for formulas: keeprate.text has the same two functions.
const FORMULA = /^'*[=+\-@\t\r]/;
const NUMBER = /^[-+]?\d+(\.\d*)?([eE][-+]?\d+)?$/;
const neutral = (text) => (FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text);
const asMeant = (text) =>
  text.startsWith("'") && FORMULA.test(text.slice(1)) ? text.slice(1) : text;

function written(rows) {
  const cell = (text) => `"${neutral(text).replaceAll('"', '""')}"`;
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function parsed(text) {
  const mark = text.split("\n", 1)[0].includes(";") ? ";" : ","; // as spreadsheets write it
  const rows = [[""]];
  let isQuoted = false;
  for (let i = text.startsWith("\ufeff") ? 1 : 0; i < text.length; i++) {
    const row = rows.at(-1);
    if (text[i] === '"' && isQuoted && text[i + 1] === '"') row[row.length - 1] += text[i++];
    else if (text[i] === '"') isQuoted = !isQuoted;
    else if (isQuoted) row[row.length - 1] += text[i];
    else if (text[i] === mark) row.push("");
    else if (text[i] === "\n") rows.push([""]);
    else if (text[i] !== "\r") row[row.length - 1] += text[i];
  }
  const [header, ...lines] = rows.filter((row) => row.length > 1);
  const places = COLUMNS.map((name) => (header ?? []).indexOf(name));
  if (places.slice(0, 4).includes(-1)) throw Error("This is no file of decisions.");
  return lines.map((row) => places.map((place) => asMeant(row[place] ?? "")));
}

function begin(root) {
  const { run, classes, samples } = JSON.parse(root.dataset.desk);
  const cards = [...root.querySelectorAll(".card")];
  const named = [...root.querySelectorAll("[data-do]")].map((part) => [part.dataset.do, part]);
  const parts = Object.fromEntries(named);
  const sampleOf = new Map(samples.map((sample) => [sample[0], sample]));
  let log = restored(); // batches of rows of the file: to undo is to forget the last batch
  let current = 0;

  function restored() {
    try {
      const kept = JSON.parse(localStorage.getItem(run)) ?? [];
      const isRow = (row) => row.length === 5 && row.every((cell) => typeof cell === "string");
      return kept.every((batch) => batch.every(isRow)) ? kept : [];
    } catch {
      return [];
    }
  }

  const decided = () => new Map(log.flat().map((row) => [row[0], row]));

  function remember(batch) {
    if (batch) log.push(batch);
    else log.pop();
    try {
      localStorage.setItem(run, JSON.stringify(log));
    } catch {
      parts.said.textContent = "This browser keeps nothing: download before you leave.";
    }
    show();
  }

  function show() {
    const known = decided();
    cards.forEach((card, i) => {
      const [, , verdict, label] = known.get(samples[i][0]) ?? ["", "", ""];
      card.dataset.verdict = verdict;
      card.querySelector("output").textContent = verdict && SAID[verdict]?.(label);
      card.toggleAttribute("aria-current", i === current);
    });
    const [, given, suggested] = samples[current];
    const n = samples.filter(([row]) => known.has(row)).length;
    parts.accept.firstElementChild.textContent = suggested ?? "";
    parts.accept.disabled = suggested === null;
    parts.keep.firstElementChild.textContent = given;
    parts.undo.disabled = !log.length;
    parts.download.disabled = !known.size;
    parts.progress.value = n;
    parts.count.textContent = `${n} of ${samples.length} decided`;
  }

  function goTo(i) {
    current = i;
    cards[i].closest("details").open = true;
    cards[i].scrollIntoView({ block: "nearest" });
    show();
  }

  function goOn() {
    const known = decided();
    const later = [...samples.keys()].map((i) => (current + 1 + i) % samples.length);
    goTo(later.find((i) => !known.has(samples[i][0])) ?? current);
  }

  function decide(verdict, label) {
    const [row, given, , name] = samples[current];
    parts.said.textContent = "";
    remember([[row, given, verdict, label, name]]);
    goOn();
  }

  const acts = {
    accept: () => decide("change", samples[current][2]),
    keep: () => decide("keep", samples[current][1]),
    drop: () => decide("drop", ""),
    next: goOn,
    right: () => goTo((current + 1) % samples.length),
    left: () => goTo((current + samples.length - 1) % samples.length),
    class: () => parts.class.focus(),
    undo() {
      const place = samples.findIndex(([row]) => row === log.at(-1)[0][0]);
      remember(null);
      goTo(place < 0 ? current : place);
    },
    download() {
      const link = document.createElement("a");
      const text = written([COLUMNS, ...decided().values()]);
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = "decisions.csv";
      link.click();
    },
  };

  function load(text) {
    const batch = parsed(text);
    for (const [row, given, verdict, label] of batch) {
      const isOther = (sampleOf.get(row)?.[1] ?? given) !== given;
      if (isOther || !SAID[verdict] || (label && !classes.includes(label)))
        throw Error(`The decision on row ${row} is not of this run.`);
    }
    if (batch.length) remember(batch);
    const n = batch.filter(([row]) => !sampleOf.has(row)).length;
    const more = n ? `, ${n} of them on labels that are not shown` : "";
    return `${batch.length} decisions loaded${more}.`;
  }

  parts.class.append(...classes.map((name) => new Option(name)));
  parts.class.addEventListener("change", () => {
    const label = classes[parts.class.selectedIndex - 1];
    parts.class.selectedIndex = 0;
    parts.class.blur(); // so that keys decide again
    if (label !== undefined) decide(label === samples[current][1] ? "keep" : "change", label);
  });
  parts.file.addEventListener("change", async () => {
    try {
      parts.said.textContent = load(await parts.file.files[0].text());
    } catch (error) {
      parts.said.textContent = error.message;
    }
    parts.file.value = "";
  });
  for (const name of ["accept", "keep", "drop", "next", "undo", "download"])
    parts[name].addEventListener("click", acts[name]);
  cards.forEach((card, i) => card.addEventListener("click", () => goTo(i)));
  root.querySelector(".bar").hidden = false;
  current = Math.max(0, samples.findIndex(([row]) => !decided().has(row)));
  show();
  return {
    isSeen() {
      const { top, bottom } = root.getBoundingClientRect();
      return top < innerHeight && bottom > 0;
    },
    act(name) {
      const { top, bottom } = cards[current].getBoundingClientRect();
      const middle = (top + bottom) / 2;
      // Nobody decides on what is out of sight.
      if (middle <= 0 || middle >= innerHeight) goTo(current);
      else if (!parts[name]?.disabled) acts[name]();
    },
  };
}

const desks = [...document.querySelectorAll(".desk")].map(begin);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("select, input, textarea")) return;
  const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  const desk = desks.find((one) => one.isSeen());
  if (!name || !desk) return;
  event.preventDefault();
  desk.act(name);
});
