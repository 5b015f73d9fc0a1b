// What a checker of accessibility can tell of a page as it stands: names, labels, structure, contrast. Answers a list of
// complaints. The rules are those of WCAG 2.2 (A and AA) that can be computed; https://www.w3.org/TR/WCAG22/ has the words.
() => {
  const complaints = [];
  const complain = (rule, element, more = "") => complaints.push(`${rule}: <${element.tagName.toLowerCase()} class="${element.getAttribute("class") ?? ""}"> ${(element.textContent ?? "").trim().slice(0, 40)} ${more}`);
  const seen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) && element.closest("[aria-hidden=true]") === null;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);

  // names and labels
  const referred = (element, attribute) => (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean);
  const nameOf = (element) =>
    element.getAttribute("aria-label") ||
    referred(element, "aria-labelledby").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim() ||
    [...(element.labels ?? [])].map((label) => label.textContent).join(" ").trim() ||
    element.textContent.trim() ||
    [...element.querySelectorAll("img")].map((image) => image.alt).join("");
  for (const element of all("a[href], button, [role=button], summary, [role=region], [role=group], dialog, nav")) if (!nameOf(element)) complain("has no name", element);
  for (const element of all("input:not([type=hidden]), select, textarea")) {
    const label = element.getAttribute("aria-label") || referred(element, "aria-labelledby").length || [...element.labels].some((one) => one.textContent.trim());
    if (!label) complain("has no label", element);
  }
  for (const element of all("img")) if (!element.hasAttribute("alt")) complain("has no alt", element);
  for (const element of all("[tabindex]")) if (element.tabIndex > 0) complain("tabindex above 0", element);
  for (const element of all("[aria-controls], [aria-labelledby], [aria-describedby]"))
    for (const attribute of ["aria-controls", "aria-labelledby", "aria-describedby"])
      for (const id of referred(element, attribute)) if (!document.getElementById(id)) complain(`${attribute} leads nowhere`, element, id);
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids.filter((one, index) => ids.indexOf(one) !== index))) complaints.push(`id given twice: ${id}`);

  // structure
  if (!document.documentElement.lang) complaints.push("the page has no language");
  if (!document.title.trim()) complaints.push("the page has no title");
  if (all("main").length !== 1) complaints.push(`the page has ${all("main").length} main landmarks`);
  if (all("h1").length !== 1) complaints.push(`the page has ${all("h1").length} first headings`);
  let level = 1;
  for (const element of all("h1, h2, h3, h4")) {
    const now = Number(element.tagName[1]);
    if (now > level + 1) complain("skips a level of headings", element);
    level = now;
  }
  for (const element of all("table")) {
    if (!element.querySelector("th[scope=row]") && element.querySelector("tbody tr")) complain("rows have no header", element);
    if ([...element.querySelectorAll("thead th")].some((one) => one.getAttribute("scope") !== "col" || !one.textContent.trim())) complain("a column has no header", element);
  }
  for (const element of all("dl")) if ([...element.children].some((one) => !["DT", "DD"].includes(one.tagName))) complain("holds something other than pairs", element);
  for (const element of all("ul, ol")) if ([...element.children].some((one) => one.tagName !== "LI")) complain("holds something other than items", element);
  for (const element of all("*")) {
    const style = getComputedStyle(element);
    const scrolls = ["auto", "scroll"].includes(style.overflowX) || ["auto", "scroll"].includes(style.overflowY);
    const more = element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1;
    if (scrolls && more && element.tabIndex < 0 && !element.querySelector("a[href], button, input, [tabindex]")) complain("scrolls, and not by keyboard", element);
  }

  // contrast: each text against what is painted behind it
  const parse = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return { red, green, blue, alpha };
  };
  const over = (top, below) => Object.fromEntries([...["red", "green", "blue"].map((part) => [part, top[part] * top.alpha + below[part] * (1 - top.alpha)]), ["alpha", 1]]);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour.alpha === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), { red: 255, green: 255, blue: 255, alpha: 1 });
  };
  const luminance = ({ red, green, blue }) => {
    const [r, g, b] = [red, green, blue].map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const judged = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || judged.has(element) || element.closest(":disabled, noscript, script, .unseen") || !seen(element)) continue;
    judged.add(element);
    const style = getComputedStyle(element);
    const behind = ground(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = contrast(over(parse(style.color), behind), behind);
    if (ratio < (large ? 3 : 4.5)) complain(`contrast ${ratio.toFixed(2)}`, element);
  }
  // and the edge of what can be filled in
  for (const element of all("input:not([type=checkbox]), select")) {
    const behind = ground(element.parentElement);
    if (contrast(over(parse(getComputedStyle(element).borderTopColor), behind), behind) < 3) complain("its edge has too little contrast", element);
  }
  return complaints;
}
