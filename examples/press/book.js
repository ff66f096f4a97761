// The search, and the colours.  Everything else on a page works without this file.
"use strict";

// ---- colours: as the system says, light, dark

const root = document.documentElement, themes = ["", "light", "dark"];
document.querySelector(".theme").onclick = () => {
  root.dataset.theme = themes[(themes.indexOf(root.dataset.theme) + 1) % 3];
  try { localStorage.theme = root.dataset.theme; } catch { /* a page from a file may not store anything */ }
};

// ---- printing: what is folded is printed, too

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => one.open = true));

// ---- search: every word must begin a word of a section; those in its title count most

const up = document.querySelector("script[data-up]").dataset.up;
const box = document.querySelector("[type=search]"), list = document.querySelector(".found");
let INDEX = null;

function load() {
  if (document.getElementById("index")) return;
  const script = document.createElement("script");
  script.id = "index";
  script.src = up + "search.js";
  script.onload = search;
  document.head.append(script);
}

const escaped = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);

function snippet(text, words) {
  const first = text.search(words[0]), start = Math.max(0, first - 60);
  let shown = escaped((start ? "… " : "") + text.slice(start, start + 180) + (start + 180 < text.length ? " …" : ""));
  for (const word of words) shown = shown.replace(new RegExp(word.source, "gi"), "<mark>$&</mark>");
  return shown;
}

function search() {
  const asked = box.value.trim();
  list.hidden = !asked;
  if (!asked || !INDEX) return;
  const words = asked.split(/\s+/).map(word => new RegExp(
    (/^\w/.test(word) ? "(?<![a-z0-9.])" : "") + word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i"));
  const hits = [];
  for (const [page, anchor, title, text] of INDEX) {
    let score = 0;
    for (const word of words) {
      const inTitle = word.test(title) || word.test(title.replaceAll("_", " ")), inText = word.test(text);
      if (!inTitle && !inText) { score = 0; break; }
      score += 5 * inTitle + inText;
    }
    const last = title.split(/[.,] ?/);
    if (score && (title.split(",")[0].toLowerCase() === asked.toLowerCase() || last.at(-1) === asked)) score += 50;
    if (score) hits.push([score, page, anchor, title, text]);
  }
  hits.sort((a, b) => b[0] - a[0]);
  list.innerHTML = hits.slice(0, 30).map(([, page, anchor, title, text]) =>
    `<li><a href="${up}${page}${anchor && "#" + anchor}"><b>${escaped(title)}</b><span>${snippet(text, words)}</span></a></li>`
  ).join("") || "<li>Nothing found.</li>";
}

box.onfocus = load;
box.oninput = search;
box.form.onsubmit = event => {
  event.preventDefault();
  list.querySelector("a")?.click();
};
addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== box) { event.preventDefault(); box.focus(); }
  if (event.key === "Escape") { list.hidden = true; box.blur(); }
});
list.addEventListener("click", () => list.hidden = true);
