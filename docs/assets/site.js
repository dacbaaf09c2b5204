// What scrolls sideways can be scrolled by keyboard, and the search says what it is.

addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-search__scrollwrap, pre > code")) box.tabIndex = 0;
});
