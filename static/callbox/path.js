/**
 * The way media takes: "direct", "relay udp", "relay tcp", "relay tls", "relay" where only the other end knows how, and
 * "connecting" before there is one.
 * @typedef {"connecting" | "direct" | "relay" | "relay udp" | "relay tcp" | "relay tls"} Path
 */

/**
 * Reads the path from the selected candidate pair.
 *
 * Only a local relay candidate says how its client reaches the relay (relayProtocol); of a remote one nothing but its
 * being a relay is known here, so the two ends tell each other (see combinePaths).
 *
 * @param {Iterable<[string, any]> & {get(id: string): any}} stats what RTCPeerConnection.getStats gives
 * @returns {Path}
 */
export function selectedPath(stats) {
  let pair;
  for (const [, entry] of stats) {
    if (entry.type === "transport" && entry.selectedCandidatePairId) {
      pair = stats.get(entry.selectedCandidatePairId);
      break;
    }
    // Firefox has no transport statistics and marks the pair instead.
    if (entry.type === "candidate-pair" && entry.selected) pair ??= entry;
  }
  if (!pair) return "connecting";
  const local = stats.get(pair.localCandidateId);
  const remote = stats.get(pair.remoteCandidateId);
  if (local?.candidateType === "relay") {
    /** @type {unknown} */
    const protocol = local.relayProtocol;
    return protocol === "udp" || protocol === "tcp" || protocol === "tls" ? `relay ${protocol}` : "relay";
  }
  return remote?.candidateType === "relay" ? "relay" : "direct";
}

/**
 * What both ends know together: a relay that the other end uses carries this end's media too.
 * @param {Path} mine
 * @param {Path | undefined} theirs
 * @returns {Path}
 */
export function combinePaths(mine, theirs) {
  if (mine === "connecting" || (mine.startsWith("relay") && mine !== "relay")) return mine;
  return theirs?.startsWith("relay") ? theirs : mine;
}

/** The paths one peer may tell another. */
export const PATHS = new Set(["connecting", "direct", "relay", "relay udp", "relay tcp", "relay tls"]);
