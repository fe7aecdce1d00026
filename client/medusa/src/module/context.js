"use strict"
/**
 * What the current request and the current query are, carried along by Node's AsyncLocalStorage: whether it is a
 * request of the store, and what the query has read so far.
 */
const { AsyncLocalStorage } = require("node:async_hooks")
const { holdAnswer } = require("./answers")

const storage = new AsyncLocalStorage()

class Scope {
  /** @param {{ isStore: boolean, parent?: Scope, query?: any, response?: any }} parts response: of a request's scope */
  constructor({ isStore, parent, query, response }) {
    this.isStore = isStore
    this.response = response
    /** What the request has cleared and is not settled. @type {Set<Promise<unknown>> | undefined} */
    this.unsettled = undefined
    this.parent = parent
    this.query = query
    /** @type {import("./reads").Read[]} */
    this.reads = []
    /** Whether a result is being made that will be stored as a whole. */
    this.isFilling = false
    /** Whether everything is to be read from the database: asked for, or to see what the query reads. */
    this.isFresh = false
    /** How many results are being made that will be stored, other than queries as a whole. */
    this.derives = 0
    /** What is stored for which key, by whom it was begun. */
    this.key = undefined
    /** Of which reading of the rules' attributes the key is (pricecontext.js). */
    this.mark = undefined
  }

  /** A read belongs to the query that made it, and to those that asked for that query. */
  note(read) {
    for (let scope = this; scope; scope = scope.parent) if (scope.query) scope.reads.push(read)
  }

  /** The answer to the request waits for this. */
  hold(settled) {
    let request = this
    while (request.parent) request = request.parent
    if (!request.unsettled) {
      request.unsettled = new Set()
      holdAnswer(request.response, request.unsettled)
    }
    request.unsettled.add(settled)
    settled.finally(() => request.unsettled.delete(settled))
  }

  /** Whether an outer query is stored as a whole: then nothing within it is stored once more. */
  isWithinFill() {
    for (let scope = this.parent; scope; scope = scope.parent) if (scope.isFilling) return true
    return false
  }
}

/** Whether the scope, or one around it, is so. */
function isAny(scope, what) {
  for (let at = scope; at; at = at.parent) if (at[what]) return true
  return false
}

/** Whether a result is being made around it that will be stored as a whole. */
const isPart = (scope) => isAny(scope, "isFilling")

/** Whether nothing around it may be read from the cache. */
const isFresh = (scope) => isAny(scope, "isFresh")

/** Whether the rows of single reads are of interest to what is around them. */
const isWhole = (scope) => isPart(scope) || isFresh(scope)

/**
 * Whether a read may come from the near cache. That may lag behind the server until a clear is settled. So it is for
 * answers to the store only, never for what becomes a part of something that is stored: the server would accept a fill
 * that began after the clear, and keep it.
 */
const mayBeNear = (scope) => Boolean(scope?.isStore) && !isWhole(scope) && !isAny(scope, "derives")

/**
 * Something was missed that a caller outside our queries will make and store, from whatever it reads in this request.
 */
function derivesFromNowOn(scope) {
  for (let at = scope; at; at = at.parent) at.derives += 1
}

const current = () => storage.getStore()

/** Runs within a request. */
function inRequest(isStore, run, response) {
  return storage.run(new Scope({ isStore, response }), run)
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

module.exports = { current, isWhole, isPart, isFresh, mayBeNear, derivesFromNowOn, inRequest, inQuery, outside, Scope }
