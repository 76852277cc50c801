// Package bustest is the conformance suite of bus.Bus: every guarantee that
// the interfaces of package bus state, as a test that any implementation can be
// given to. It tests nothing that is particular to one implementation.
package bustest

import (
	"testing"
	"time"

	"callbox/bus"
)

// Lease is the longest time a node that died without a word may still count.
const Lease = 6 * time.Second

// patience is how long the suite waits for what must happen "soon"; only
// reached when something is wrong or the machine is very busy.
const patience = 20 * time.Second

// Cluster is what an implementation brings: fresh shared state, and nodes on
// it. Close what Open returned is the suite's work; the rest is the cluster's,
// by t.Cleanup.
type Cluster interface {
	// Open makes a node that is not started yet. store nil: records in memory.
	Open(t testing.TB, name string, store *bus.Store) bus.Bus
	// Kill ends a node as a crash would, without a goodbye.
	Kill(t testing.TB, b bus.Bus)
}

// Cutter is a Cluster that can separate a node from what it shares, such that
// packets are dropped and not refused.
type Cutter interface {
	Cut(t testing.TB, b bus.Bus)
	Heal(t testing.TB, b bus.Bus)
}

// Flusher is a Cluster that can lose all that is shared.
type Flusher interface {
	Flush(t testing.TB)
}

// Run checks an implementation. Every test gets a cluster of its own.
func Run(t *testing.T, open func(t *testing.T) Cluster) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, c Cluster)
	}{
		{"MessagesArriveOnceAndInOrderPerSender", messagesInOrder},
		{"MessageToSelfIsDelivered", messageToSelf},
		{"HandlerMaySend", handlerMaySend},
		{"SendToKilledNodeComesBackAtOnce", sendToKilled},
		{"SendToClosedNodeComesBackAtOnce", sendToClosed},
		{"SendToNodeThatNeverWasComesBack", sendToUnknown},
		{"MessageOverTheLimitIsRefused", messageTooLarge},
		{"LargeMessagesArriveWhole", largeMessages},
		{"StuckReceiverMakesSenderBusyNotStuck", busyBound},
		{"NothingIsHandledAfterClose", nothingAfterClose},
		{"StatsCountMessages", statsCount},

		{"ClaimThenLocateThenRelease", claimLocateRelease},
		{"SameProofTakesOver", sameProofTakesOver},
		{"OtherProofIsTaken", otherProofIsTaken},
		{"HigherEpochFencesReclaim", fencedReclaim},
		{"OneOfManyClaimsWins", oneClaimWins},
		{"EpochsGrowUnderTakeover", epochsGrow},
		{"EpochsAndVersionsGrowAfterLoss", epochsGrowAfterLoss},
		{"KilledNodesPeersAreFree", killedNodesPeers},
		{"WaitingNodeIsNamedInGrant", waitingIsNamed},
		{"WaitingEndsWithItsTime", waitingEnds},
		{"MissAndWaitingAreOneStep", waitingIsAtomic},
		{"ParkedStateGoesToSameProof", parkAndClaim},
		{"ParkedStateOutlivesItsNode", parkOutlivesNode},
		{"ParkedStateEndsWithItsTime", parkEnds},
		{"NamesAreBounded", namesBounded},
		{"OddNamesWork", oddNames},

		{"RoomVersionsOrderStates", roomVersions},
		{"RoomLimitHoldsUnderConcurrentJoins", roomLimit},
		{"JoinAgainReplacesUnlessOlder", joinAgain},
		{"LeaveOfAnOlderEpochIsIgnored", leaveOlder},
		{"KilledNodesMembersDoNotCount", killedNodesMembers},
		{"RoomRelayStaysUntilItDrainsOrDies", roomRelay},

		{"NodesSeeEachOther", nodesSeeEachOther},
		{"ClosedNodeIsGoneAtOnce", closedNodeGone},
		{"KilledNodeIsGoneWithinLease", killedNodeGone},
		{"ManyNodesTalk", manyNodes},

		{"UpdatesOfOneKeyAreOneSequence", recordsContention},
		{"UpdateErrorChangesNothing", recordsError},
		{"DeletedRecordIsGone", recordsDelete},
		{"RecordEndsWithItsTime", recordsTTL},
		{"ChangedIsToldOnEveryNode", recordsChanged},
		{"RecordsWorkBeforeStart", recordsBeforeStart},
		{"RecordsAreOnEveryNodesDisk", recordsOnDisk},
		{"LostRecordsArePutBack", recordsPutBack},

		{"ShortCutLosesNothing", shortCut},
		{"LongCutFencesTheNode", longCut},
		{"LossOfAllStateIsTold", lossIsTold},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}
