/**
 * A name that nobody else has: 128 random bits in hexadecimal.
 * (crypto.randomUUID is missing from pages without https.)
 * @returns {string}
 */
export function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
