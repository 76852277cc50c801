/**
 * Shows someone without a picture: their initials on a colour of their own.
 * @param {HTMLElement} element
 * @param {string} name
 */
export function showAvatar(element, name) {
  element.textContent = initials(name);
  let hue = 0;
  for (const letter of name) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  element.style.setProperty("--hue", String(hue));
}

function initials(name) {
  const words = name.trim().split(/[\s._@-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0].toUpperCase()).join("") || "?";
}
