package bunstore

// readStatements are those that a pool of readers prepares. The statements
// that Store.ask runs must all be among them; one that a transaction runs and
// that is missing is only prepared anew at each use.
func (s *Store) readStatements() []statement {
	all := []statement{
		readHead, selectLines, selectCheckpoints, selectContents, firstSince, lastUntil, timeOf, indexState,
		selectOrganization, selectAgents, selectKeys, selectAgentsKeys, selectKeyByDigest, selectKeysByDigest[s.postgres],
		selectTools, selectCredentials, selectGrants, selectPairs, selectApprovals, selectDataKeys,
		counted("agent_id"), counted("tool_id"), newest("agent_id", s.postgres), newest("tool_id", s.postgres), latestOf, rarity,
		selectRecord, selectWindows, selectOne[s.postgres].text, selectHolders, selectOrganizations, selectDue,
	}
	if s.postgres {
		return append(append(all, setLocal, selectBulk.text), selectArms...)
	}
	return append(all, nearKeys.byRow, nearKeys.byKey, nearAgents.byRow, nearAgents.byKey, nearGrants.byRow, nearGrants.byKey)
}

// writeStatements are those that the writer prepares in addition.
func (s *Store) writeStatements() []statement {
	all := []statement{
		makeHead, updateHead, insertCheckpoint, erasePersonal, eraseContent,
		organizationRelation.insert, organizationRelation.update, agentRelation.insert, agentRelation.update,
		keyRelation.insert, keyRelation.update, keyRelation.stands, toolRelation.insert, toolRelation.update, toolRelation.stands,
		credentialRelation.insert, credentialRelation.update, credentialRelation.stands, deleteCredential,
		deleteTool, deleteToolApprovals, deleteToolCredentials, deleteToolGrants,
		grantRelation.insert, grantRelation.update, grantRelation.stands, approvalRelation.insert, approvalRelation.update,
		dataKeyRelation.insert, dataKeyRelation.update, dataKeyRelation.stands, otherActive, reserveSeals, readReserved,
		recordRelation.insert, recordRelation.update, recordRelation.stands, insertEntry, deleteEntry, deleteRecord,
		deliveryRelation.insert, settleDone, settleLater, putWindow, deleteWindow,
		makeCursor, lockCursor, readCursor, moveCursor, nextContents, insertTimes, insertTerms, dropTimes, dropTerms,
	}
	if s.postgres {
		return append(all, lockHead, dropHead, putWindows, insertEvent, insertLeaf, moveHead, insertLines, appendLines, leaseRows)
	}
	return append(all, lockDatabase, setSavepoint, keepSavepoint, undoSavepoint, insertEvent, insertEvents, insertLeaf, insertLeaves, leaseFile)
}

// brief are statements that touch few rows, each found by its key. On SQLite they
// are not watched for the end of a context, for which the driver starts a goroutine
// at each: they end before it could be told. Elsewhere every statement is.
func brief(q statement) bool {
	switch q {
	case nearKeys.byRow, nearKeys.byKey, nearAgents.byRow, nearAgents.byKey, nearGrants.byRow, nearGrants.byKey,
		selectOrganization, selectDataKeys, selectTools, selectCredentials, selectWindows,
		readHead, selectOne[false].text, insertEvent, insertEvents, insertLeaf, insertLeaves, updateHead, insertCheckpoint, putWindow,
		lockDatabase, setSavepoint, keepSavepoint, undoSavepoint:
		return true
	}
	return false
}
