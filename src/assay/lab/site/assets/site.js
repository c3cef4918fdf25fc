// Theme, copying, and the filter of the index. Every page reads well without it.
"use strict";

const root = document.documentElement;

const themes = ["auto", "dark", "light"];
const themeButton = document.getElementById("theme");
themeButton.hidden = false;
const showTheme = () => {
  themeButton.querySelector("span").textContent = root.dataset.theme || "auto";
};
themeButton.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("assay-theme");
    else localStorage.setItem("assay-theme", next);
  } catch (error) {
    // storage is off: the choice holds for this page only
  }
  showTheme();
});
showTheme();

for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) break; // a page from a file may not have one
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("code").textContent;
    let word = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      word = "Not allowed";
    }
    button.textContent = word;
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

const form = document.getElementById("filter");
if (form) {
  const query = document.getElementById("q");
  const domain = document.getElementById("domain");
  const found = document.getElementById("found");
  const none = document.getElementById("none");
  const outcomes = [...form.querySelectorAll("input[name=outcome]")];
  const studies = [...document.querySelectorAll(".study")].map((element) => ({
    element,
    text: element.dataset.text,
    domain: element.dataset.domain,
    claims: [...element.querySelectorAll("[data-outcome]")],
  }));
  const domains = [...document.querySelectorAll("section.domain")];
  const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;
  const outcome = () => (outcomes.find((input) => input.checked) || { value: "" }).value;

  const apply = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = outcome();
    let shownStudies = 0;
    let shownClaims = 0;
    for (const study of studies) {
      let claims = 0;
      for (const claim of study.claims) {
        claim.hidden = Boolean(wanted) && claim.dataset.outcome !== wanted;
        claims += claim.hidden ? 0 : 1;
      }
      const fits = words.every((word) => study.text.includes(word))
        && (!domain.value || study.domain === domain.value)
        && (!wanted || claims > 0);
      study.element.hidden = !fits;
      if (fits) {
        shownStudies += 1;
        shownClaims += claims;
      }
    }
    for (const section of domains) section.hidden = !section.querySelector(".study:not([hidden])");
    none.hidden = shownStudies > 0;
    const all = shownStudies === studies.length && !wanted;
    found.textContent = all ? "" : `${plural(shownStudies, "study", "studies")}, ${plural(shownClaims, "claim", "claims")} shown`;
  };

  const remember = () => {
    const state = new URLSearchParams();
    if (query.value) state.set("q", query.value);
    if (domain.value) state.set("domain", domain.value);
    if (outcome()) state.set("outcome", outcome());
    try {
      history.replaceState(null, "", state.size ? `#${state}` : location.href.split("#")[0]);
    } catch (error) {
      // a page that may not touch its address still filters
    }
  };
  const recall = () => {
    const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    query.value = state.get("q") || "";
    domain.value = state.get("domain") || "";
    if (domain.selectedIndex < 0) domain.value = "";
    for (const input of outcomes) input.checked = input.value === (state.get("outcome") || "");
    if (!outcomes.some((input) => input.checked)) outcomes[0].checked = true;
    apply();
  };

  // On a phone the list starts with a mark for each claim; a tick writes them out.
  const inWords = document.getElementById("words");
  const showWords = () => document.getElementById("ledger").classList.toggle("compact", !inWords.checked);
  inWords.checked = window.innerWidth >= 600;
  showWords();

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { apply(); remember(); showWords(); });
  document.getElementById("clear").addEventListener("click", () => {
    query.value = "";
    domain.value = "";
    outcomes[0].checked = true;
    apply();
    remember();
    query.focus();
  });
  window.addEventListener("hashchange", recall);
  recall();
}
