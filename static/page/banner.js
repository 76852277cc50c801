/**
 * Shows what the connection with the server does, and helps it back when the network or the tab returns.
 * @param {import("../callbox/client.js").Client} client
 * @param {string} reassurance what goes on meanwhile
 */
export function showConnection(client, reassurance) {
  const banner = document.getElementById("banner");
  let timer = null;
  const say = (text, kind = "") => {
    clearTimeout(timer);
    banner.textContent = text;
    banner.dataset.kind = kind;
    banner.hidden = !text;
  };
  client.on("state", (state) => {
    if (state === "open") say("");
    // Shown at once while reconnecting; at the first try only if it takes long enough to be noticed.
    else if (state === "reconnecting") say(`Connection to the server lost. Reconnecting… ${reassurance()}`.trim());
    else if (state === "connecting") timer = setTimeout(() => say("Connecting…"), 1500);
  });
  client.on("closed", (error) => {
    switch (error.code) {
      case "closed":
      case document.getElementById("left")?.hidden === false && error.code: // the page says it by itself
        return say("");
      case "unauthorized":
        say("You are not logged in any more. ", "final");
        break;
      default:
        say(`Disconnected: ${error.message}. `, "final");
    }
    const again = document.createElement("a");
    again.href = location.pathname;
    again.textContent = error.code === "unauthorized" ? "Log in again" : "Load the page again";
    banner.append(again);
  });
  window.addEventListener("online", () => client.retry());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) client.retry();
  });
}
