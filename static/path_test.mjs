import assert from "node:assert/strict";
import { test } from "node:test";
import { combinePaths, selectedPath } from "./callbox/path.js";

const stats = (local, remote, more = {}) =>
  new Map(
    Object.entries({
      T: { type: "transport", selectedCandidatePairId: "P2" },
      P1: { type: "candidate-pair", localCandidateId: "X", remoteCandidateId: "X" },
      P2: { type: "candidate-pair", localCandidateId: "L", remoteCandidateId: "R" },
      X: { candidateType: "relay", relayProtocol: "tcp" },
      L: local,
      R: remote,
      ...more,
    }),
  );

test("the path is read from the selected pair", () => {
  const cases = [
    [{ candidateType: "host" }, { candidateType: "prflx" }, "direct"],
    [{ candidateType: "srflx" }, { candidateType: "srflx" }, "direct"],
    [{ candidateType: "relay", relayProtocol: "udp" }, { candidateType: "host" }, "relay udp"],
    [{ candidateType: "relay", relayProtocol: "tcp" }, { candidateType: "relay" }, "relay tcp"],
    [{ candidateType: "relay", relayProtocol: "tls" }, { candidateType: "host" }, "relay tls"],
    [{ candidateType: "relay" }, { candidateType: "host" }, "relay"],
    [{ candidateType: "host" }, { candidateType: "relay" }, "relay"],
  ];
  for (const [local, remote, want] of cases) assert.equal(selectedPath(stats(local, remote)), want);
});

test("without a selected pair it is still connecting", () => {
  assert.equal(selectedPath(new Map()), "connecting");
  assert.equal(selectedPath(stats({}, {}, { T: { type: "transport" } })), "connecting");
});

test("a browser without transport statistics marks the pair", () => {
  const firefox = stats({ candidateType: "relay", relayProtocol: "udp" }, {}, { T: { type: "other" } });
  firefox.get("P2").selected = true;
  assert.equal(selectedPath(firefox), "relay udp");
});

test("a relay that only the other end knows of carries this end too", () => {
  const cases = [
    ["direct", undefined, "direct"],
    ["direct", "direct", "direct"],
    ["direct", "relay tcp", "relay tcp"],
    ["relay", "relay tls", "relay tls"],
    ["relay", undefined, "relay"],
    ["relay udp", "relay tcp", "relay udp"],
    ["relay udp", "direct", "relay udp"],
    ["connecting", "relay udp", "connecting"],
  ];
  for (const [mine, theirs, want] of cases) assert.equal(combinePaths(mine, theirs), want);
});
