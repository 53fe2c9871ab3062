// Package faultstore wraps a storage backend so that tests can make any one of
// its calls fail.
//
// A [Store] numbers every call that a Manager makes of its storage: the methods
// of storage.Store, the methods of the transactions that Update and View give,
// and the commit of every Update, which is a call of its own after the last one
// of the transaction. [Store.Arm] begins to count at 1 and says which call fails,
// how, and whether all later ones fail too.
//
// A store that fails keeps the contract as one that works does: the error of a
// method poisons its transaction, an Update that answers an error other than
// storage.ErrUnknown has kept nothing, and ErrUnknown is answered both for
// commits that stand and for commits that do not.
package faultstore
