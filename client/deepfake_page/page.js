() => {
  // What changes there is read aloud, once the reader has finished its sentence.
  const results = ["df-status", "df-verdict", "df-verdicts"];
  const narrow = window.matchMedia("(max-width: 600px)");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  const amend = () => {
    for (const id of results) {
      const region = document.getElementById(id);
      if (region && !region.hasAttribute("aria-live")) {
        region.setAttribute("aria-live", "polite");
        // On a phone the answer lies below the screen's edge.
        new MutationObserver(() => {
          if (narrow.matches && region.querySelector(".df-card, table")) {
            region.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
          }
        }).observe(region, { childList: true, subtree: true });
      }
    }
    // Their own words name these buttons; gradio's label says others, which nobody can say to a voice control.
    for (const button of document.querySelectorAll("button[aria-dropeffect][aria-label]")) {
      button.removeAttribute("aria-label");
    }
  };

  // Ctrl-V anywhere on the page, as well as gradio's own button.
  document.addEventListener("paste", (event) => {
    const images = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const inputs = [...document.querySelectorAll("#df-image input[type=file], #df-images input[type=file]")];
    const input = inputs.find((each) => each.parentElement.offsetParent !== null);
    if (images.length === 0 || !input) {
      return;
    }
    const pasted = new DataTransfer();
    for (const image of input.multiple ? images : images.slice(0, 1)) {
      pasted.items.add(image);
    }
    input.files = pasted.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  amend();
  new MutationObserver(amend).observe(document.body, { childList: true, subtree: true });
}
