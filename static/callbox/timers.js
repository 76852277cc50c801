/** Named timers; setting one again puts it off. */
export class Timers {
  #running = new Map();

  /** @param {string} name @param {number} ms @param {() => void} f */
  after(name, ms, f) {
    this.clear(name);
    const timer = setTimeout(() => {
      this.#running.delete(name);
      f();
    }, ms);
    this.#running.set(name, timer);
  }

  /** @param {string} name @returns {boolean} */
  has(name) {
    return this.#running.has(name);
  }

  /** @param {string} name */
  clear(name) {
    clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  clearAll() {
    for (const name of [...this.#running.keys()]) this.clear(name);
  }
}
