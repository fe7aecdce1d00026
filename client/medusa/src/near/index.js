"use strict"
/**
 * The near cache's decisions: what it may serve, what it may put away, what it has to forget. No I/O; the clock and the
 * server's answers come in. Node runs one thing at a time, so each method is one step.
 *
 * The same list as the Rust client's `mcache_core::near`; docs/near.md says why each line is there.
 */
const { HashKey } = require("./digest")
const { cellOf } = require("./replies")
const { ERROR_MS } = require("./clock")

/** So many names are remembered exactly, for each kind of event. */
const REMEMBERED = 4_096
/** About what an entry takes beside its bytes, and what each of its tags takes. */
const ENTRY_BYTES = 400
const TAG_BYTES = 150

/** The last number noted for each name: bounded, and what it forgets it answers as late as that could have been. */
class Last {
  constructor(bound = REMEMBERED) {
    this.bound = bound
    this.names = new Map()
    this.forgotten = 0
  }

  note(name, number) {
    this.names.delete(name)
    this.names.set(name, number)
    if (this.names.size <= this.bound) return
    const [oldest, last] = this.names.entries().next().value
    this.names.delete(oldest)
    this.forgotten = Math.max(this.forgotten, last)
  }

  of(name) {
    return Math.max(this.names.get(name) ?? 0, this.forgotten)
  }
}

/** What recent events concern. */
class Events {
  constructor(bound) {
    this.all = new Last(bound)
    /** Those that spare MANUAL entries. */
    this.auto = new Last(bound)
    this.cells = new Last(bound)
    this.everything = 0
  }

  /** Whether an event after the value concerns it, or may. */
  concern({ number, isManual, digests }, cell) {
    if (this.everything > number || this.cells.of(cell) > number) return true
    return digests.some((digest) => this.all.of(digest) > number || (!isManual && this.auto.of(digest) > number))
  }
}

/** This process's own changes: those under way, and when the last ones ended. Names are `t<tag>` and `k<key>`. */
class Own {
  constructor() {
    /** @type {Map<string, number>} */
    this.underWay = new Map()
    /** Digests of the tags among them. @type {Map<string, number>} */
    this.digests = new Map()
    this.done = new Last()
    this.doneEverything = 0
  }
}

class Near {
  /** @param {{ bytes: number, now: () => number, remembered?: number, random?: () => number }} parts */
  constructor({ bytes, now, remembered = REMEMBERED, random = Math.random }) {
    Object.assign(this, { limit: bytes, now, remembered, random })
    /** By key, the one that was used last at the end. @type {Map<string, any>} */
    this.entries = new Map()
    this.bytes = 0
    /** Entries by digest of a tag, and by cell: one, or a set. */
    this.byTag = new Map()
    this.byCell = new Map()
    /** The subscription. @type {{ position: string, hashKey: HashKey, bits: number } | undefined} */
    this.joined = undefined
    /** Counts how often everything was forgotten. */
    this.identity = 0
    /** Counts calls of FEED: only the last one's answer counts. */
    this.calls = 0
    this.leaseUntil = 0
    this.events = new Events(remembered)
    this.own = new Own()
    /** Numbers reads and own changes in the order in which they happened. */
    this.moment = 1
    this.counts = { hits: 0, kept: 0, unkept: 0, dropped: 0, evicted: 0 }
  }

  // ---- the feed ----

  /** The next call of FEED; the answer to an earlier one does not count any more. */
  call() {
    this.calls += 1
    return { number: this.calls, sentAt: this.now(), position: this.joined?.position }
  }

  /** Applies an answer. Its lease counts from before the call was sent, and only if it tells everything. */
  answered(sent, answer) {
    if (sent.number !== this.calls) return
    // A call is answered once.
    this.calls += 1
    if (answer.gap) {
      this.forget()
      this.joined = { position: answer.position, hashKey: new HashKey(answer.gap.key), bits: answer.gap.bits }
      this.#rekey()
    } else if (this.joined) this.joined.position = answer.position
    // It goes on where nothing began.
    else return this.forget()
    for (const event of answer.events) this.#apply(event)
    // The clock may be lost: then there is no moment to count from.
    if (!answer.more && Number.isFinite(sent.sentAt)) this.leaseUntil = Math.max(this.leaseUntil, sent.sentAt + answer.leaseMs - ERROR_MS)
  }

  /** Nothing that is here is served again. */
  forget() {
    this.joined = undefined
    this.identity += 1
    this.calls += 1
    this.leaseUntil = 0
    this.events = new Events(this.remembered)
    this.#dropAll()
  }

  #apply({ number, kind, items }) {
    if (kind === "h" || kind === "s" || kind === "a") {
      const sparesManual = kind === "a"
      for (const digest of items) {
        ;(sparesManual ? this.events.auto : this.events.all).note(digest, number)
        this.#drop(this.byTag.get(digest), (entry) => entry.number < number && !(sparesManual && entry.isManual))
      }
    } else if (kind === "k") {
      for (const cell of items) {
        this.events.cells.note(cell, number)
        this.#drop(this.byCell.get(cell), (entry) => entry.number < number)
      }
    } else {
      // A flush or a floor; slots as well, which a server that stands alone does not lose.
      this.events.everything = Math.max(this.events.everything, number)
      this.#drop(new Set(this.entries.values()), (entry) => entry.number < number)
    }
  }

  // ---- serving ----

  /** Whether what is here may be served at this moment. */
  serves() {
    return this.now() < this.leaseUntil
  }

  /** What was put away under the key, if it may be served, or undefined. */
  get(key) {
    const entry = this.entries.get(key)
    if (!entry) return undefined
    const now = this.now()
    if (!(now < this.leaseUntil)) return undefined
    if (!(now < entry.endsAt)) {
      this.#remove(entry)
      return undefined
    }
    this.entries.delete(key)
    this.entries.set(key, entry)
    this.counts.hits += 1
    return entry.value
  }

  // ---- putting away ----

  /** To be noted before a read is sent; undefined: it cannot be put away. */
  ask() {
    if (!this.joined) return undefined
    return { identity: this.identity, moment: this.moment, sentAt: this.now(), position: this.joined.position }
  }

  /**
   * Puts a value away, unless something concerns it that happened since it was read, or may.
   * @param {ReturnType<Near["ask"]>} asked
   * @param {string} key as the server names it
   * @param {{ length: number }} value with its length in bytes
   * @param {ReturnType<import("./replies").readNear>} data what the server said beside it
   * @param {number} [fillMs] how long a load takes, if values are renewed early
   */
  put(asked, key, value, data, fillMs = 0) {
    if (!asked || !data || !this.#admits(asked, key, data)) return this.#unkept()
    const other = this.entries.get(key)
    // A read that took long must not take the place of a later one's value.
    if (other && other.number > data.number) return this.#unkept()
    const size = value.length + 2 * key.length + ENTRY_BYTES + data.digests.length * TAG_BYTES
    if (size > this.limit) return this.#unkept()
    if (other) this.#remove(other)
    // Ended a little early by chance, so that many processes do not miss a hot key at one moment.
    const early = fillMs > 0 ? fillMs * -Math.log(1 - this.random()) : 0
    const entry = {
      key,
      value,
      size,
      number: data.number,
      isManual: data.isManual,
      digests: data.digests,
      cell: this.#cell(key),
      endsAt: asked.sentAt + Math.max(0, data.lifeMs - early - (data.lifeMs < Infinity ? ERROR_MS : 0)),
    }
    this.entries.set(key, entry)
    this.bytes += size
    for (const digest of entry.digests) join(this.byTag, digest, entry)
    join(this.byCell, entry.cell, entry)
    this.counts.kept += 1
    while (this.bytes > this.limit) {
      this.#remove(this.entries.values().next().value)
      this.counts.evicted += 1
    }
    return true
  }

  #admits(asked, key, data) {
    if (!this.joined || asked.identity !== this.identity) return false
    if (this.events.concern(data, this.#cell(key))) return false
    const { own } = this
    const isDone = (name) => own.done.of(name) > asked.moment
    if (own.doneEverything > asked.moment || own.underWay.has(`k${key}`) || isDone(`k${key}`)) return false
    return !data.digests.some((digest) => own.digests.has(digest) || isDone(digest))
  }

  #unkept() {
    this.counts.unkept += 1
    return false
  }

  #cell(key) {
    return cellOf(this.joined.hashKey.digest(key), this.joined.bits)
  }

  // ---- this process's own changes ----

  /** This process is about to change what has this name: forgotten now, and not put away until it `ended`. */
  began(name) {
    this.moment += 1
    const { own } = this
    own.underWay.set(name, (own.underWay.get(name) ?? 0) + 1)
    if (name[0] === "t" && this.joined) {
      const digest = this.#digest(name)
      own.digests.set(digest, (own.digests.get(digest) ?? 0) + 1)
    }
    this.#dropOwn(name)
  }

  /** The server has acknowledged it, or never will: what was asked for before is not put away. */
  ended(name) {
    const { own } = this
    if (!own.underWay.has(name)) return
    this.#dropOwn(name)
    this.moment += 1
    decrement(own.underWay, name)
    if (name[0] === "k") own.done.note(name, this.moment)
    else if (this.joined) {
      const digest = this.#digest(name)
      decrement(own.digests, digest)
      own.done.note(digest, this.moment)
    }
  }

  /** As if everything had been changed, and that had ended now. */
  everything() {
    this.#dropAll()
    this.moment += 1
    this.own.doneEverything = this.moment
  }

  #digest(name) {
    return this.joined.hashKey.digest(name.slice(1)).toString("latin1")
  }

  #dropOwn(name) {
    if (name[0] === "k") {
      const entry = this.entries.get(name.slice(1))
      if (entry) this.#drop(entry, () => true)
    } else if (this.joined) this.#drop(this.byTag.get(this.#digest(name)), () => true)
  }

  /** Digests are made under another key from now on. */
  #rekey() {
    const { own } = this
    own.digests.clear()
    for (const [name, times] of own.underWay) if (name[0] === "t") own.digests.set(this.#digest(name), times)
  }

  // ---- entries ----

  #drop(members, isConcerned) {
    if (!members) return
    for (const entry of members instanceof Set ? [...members] : [members]) {
      if (!isConcerned(entry)) continue
      this.#remove(entry)
      this.counts.dropped += 1
    }
  }

  #dropAll() {
    this.counts.dropped += this.entries.size
    this.entries.clear()
    this.byTag.clear()
    this.byCell.clear()
    this.bytes = 0
  }

  #remove(entry) {
    this.entries.delete(entry.key)
    this.bytes -= entry.size
    for (const digest of entry.digests) leave(this.byTag, digest, entry)
    leave(this.byCell, entry.cell, entry)
  }
}

function join(table, name, entry) {
  const members = table.get(name)
  if (members === undefined) table.set(name, entry)
  else if (members instanceof Set) members.add(entry)
  else table.set(name, new Set([members, entry]))
}

function leave(table, name, entry) {
  const members = table.get(name)
  if (!(members instanceof Set)) {
    if (members === entry) table.delete(name)
    return
  }
  members.delete(entry)
  if (members.size === 0) table.delete(name)
}

function decrement(counts, name) {
  const left = (counts.get(name) ?? 0) - 1
  if (left > 0) counts.set(name, left)
  else counts.delete(name)
}

module.exports = { Near, Last, REMEMBERED }
