// Elements made by hand. Texts become text nodes and never markup, whatever a task or a target put into them.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "hidden", "htmlFor"]);

/** An element: `on…` attributes are listeners, absent ones (null, undefined, false) are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same, in a picture. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) listen(element, name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...present(children));
  return element;
}

const listening = new WeakSet();

function listen(element, event, heard) {
  element.addEventListener(event, heard);
  listening.add(element);
}

/** Puts these children, and nothing else, into an element. */
export function put(element, ...children) {
  element.replaceChildren(...present(children));
  return element;
}

/**
 * The same, and what is there already and stays the same is left alone: what is told every two seconds must not take away
 * the link that has the focus, or the button between press and release. What is marked `data-whole` has state of its own:
 * it is exchanged as a whole, and not while it is being read.
 */
export function renew(element, ...children) {
  merge(element, present(children).map((child) => (child instanceof Node ? child : document.createTextNode(child))));
}

function merge(place, wanted) {
  const there = [...place.childNodes];
  wanted.forEach((node, index) => {
    const old = there[index];
    if (old === undefined) place.append(node);
    else if (old.isEqualNode(node) || isRead(old)) return;
    else if (isAlike(old, node)) merge(old, [...node.childNodes]);
    else old.replaceWith(node);
  });
  for (const old of there.slice(wanted.length)) old.remove();
}

const isRead = (node) => node instanceof Element && node.matches("[data-whole]:is(:hover, :focus)");

const isAlike = (old, node) =>
  // What listens does so for what it was made of: another text may mean another thing to do.
  old instanceof Element && !listening.has(old) && !old.hasAttribute("data-whole") && old.cloneNode(false).isEqualNode(node.cloneNode(false));

function present(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== undefined && child !== null && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}
