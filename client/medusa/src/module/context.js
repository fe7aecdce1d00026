"use strict"
/**
 * What the current request and the current query are, carried along by Node's AsyncLocalStorage: whether it is a
 * request of the store, and what the query has read so far.
 */
const { AsyncLocalStorage } = require("node:async_hooks")

const storage = new AsyncLocalStorage()

class Scope {
  /** @param {{ isStore: boolean, parent?: Scope, query?: any }} parts */
  constructor({ isStore, parent, query }) {
    this.isStore = isStore
    this.parent = parent
    this.query = query
    /** @type {import("./reads").Read[]} */
    this.reads = []
    /** Whether a result is being made that will be stored as a whole. */
    this.isFilling = false
    /** Whether everything is to be read from the database: asked for, or to see what the query reads. */
    this.isFresh = false
    /** What is stored for which key, by whom it was begun. */
    this.key = undefined
    /** Of which reading of the rules' attributes the key is (pricecontext.js). */
    this.mark = undefined
  }

  /** A read belongs to the query that made it, and to those that asked for that query. */
  note(read) {
    for (let scope = this; scope; scope = scope.parent) if (scope.query) scope.reads.push(read)
  }

  /** Whether an outer query is stored as a whole: then nothing within it is stored once more. */
  isWithinFill() {
    for (let scope = this.parent; scope; scope = scope.parent) if (scope.isFilling) return true
    return false
  }
}

/** Whether single reads in the scope are left alone: an outer query is stored whole, or nothing may be cached. */
function isWhole(scope) {
  for (let at = scope; at; at = at.parent) if (at.isFilling || at.isFresh) return true
  return false
}

const current = () => storage.getStore()

/** Runs within a request. */
function inRequest(isStore, run) {
  return storage.run(new Scope({ isStore }), run)
}

/** Runs a query; its scope is the first argument of `run`. */
function inQuery(query, run) {
  const parent = storage.getStore()
  const scope = new Scope({ isStore: parent?.isStore ?? false, parent, query })
  return storage.run(scope, () => run(scope))
}

/** Runs without any scope: what is read there belongs to no query. */
function outside(run) {
  return storage.run(undefined, run)
}

module.exports = { current, isWhole, inRequest, inQuery, outside, Scope }
