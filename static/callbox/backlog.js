/**
 * Adds what a peer said to what waits to be handled. Past the bound a candidate gives way, the oldest first: without its
 * description it is worth nothing. Where there is none, the oldest does: a later description replaces an earlier one.
 *
 * @param {any[]} waiting bodies in the order in which they came
 * @param {any} body
 * @param {number} most
 * @returns {boolean} whether one had to give way
 */
export function enqueue(waiting, body, most) {
  waiting.push(body);
  if (waiting.length <= most) return false;
  const candidate = waiting.findIndex(({ greet, description }) => !greet && !description);
  waiting.splice(Math.max(candidate, 0), 1);
  return true;
}
