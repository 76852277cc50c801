const KEEP = 500; // messages shown

/** The chat beside the call. */
export class Chat {
  #dialog = document.getElementById("chat");
  #log = document.getElementById("chat-log");
  #input = document.getElementById("chat-input");
  #toggle = document.getElementById("chat-toggle");
  #unread = document.getElementById("chat-unread");
  #template = document.getElementById("message-template");
  #shown;

  /**
   * @param {(text: string) => number} send gives how many it reached
   * @param {() => void} [shown] called when the chat has been opened
   */
  constructor(send, shown = () => {}) {
    this.#shown = shown;
    this.#toggle.addEventListener("click", () => this.show(this.#dialog.hidden));
    document.getElementById("chat-close").addEventListener("click", () => this.show(false));
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(false);
    });
    document.getElementById("chat-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.#input.value.trim();
      if (!text) return;
      const reached = send(text);
      this.#input.value = "";
      this.add("You", text, { own: true, note: reached === 0 ? "nobody was there to read it" : "" });
    });
  }

  /** @param {boolean} shown */
  show(shown) {
    this.#dialog.hidden = !shown;
    document.body.classList.toggle("with-chat", shown);
    this.#toggle.setAttribute("aria-expanded", String(shown));
    this.#toggle.setAttribute("aria-pressed", String(shown));
    if (shown) {
      this.#unread.hidden = true;
      this.#toggle.setAttribute("aria-label", "Chat");
      this.#input.focus();
      this.#shown();
    } else {
      this.#toggle.focus();
    }
  }

  /** @param {string} name @param {string} text @param {{own?: boolean, note?: string}} [how] */
  add(name, text, { own = false, note = "" } = {}) {
    const message = this.#template.content.firstElementChild.cloneNode(true);
    message.classList.toggle("own", own);
    message.querySelector(".message-name").textContent = name;
    const now = new Date();
    const time = message.querySelector("time");
    time.dateTime = now.toISOString();
    time.textContent = now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) + (note ? ` · ${note}` : "");
    message.querySelector(".message-text").textContent = text;
    this.#log.append(message);
    while (this.#log.children.length > KEEP) this.#log.firstElementChild.remove();
    this.#log.scrollTop = this.#log.scrollHeight;
    if (!own && this.#dialog.hidden) {
      this.#unread.hidden = false;
      this.#toggle.setAttribute("aria-label", "Chat, new messages");
    }
  }
}
