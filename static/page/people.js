// They turn the direction of text (Unicode Standard Annex 9): in a name they would rearrange what stands beside it.
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** What to call somebody. @param {{name: string, user: string}} person @returns {string} */
export function nameOf({ name, user }) {
  return name.replace(TURNS, "").replace(/\s+/g, " ").trim() || user;
}

/** Nobody has verified the name of a guest: it must not pass for a user's. @param {{user: string}} person @returns {boolean} */
export function isGuest({ user }) {
  return user.startsWith("guest:");
}

/** Name and kind, for a line of text. @param {{name: string, user: string}} person @returns {string} */
export function labelOf(person) {
  return isGuest(person) ? `${nameOf(person)} (guest)` : nameOf(person);
}
