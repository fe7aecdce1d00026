"use strict"
/** What the shop's log is told, each kind of trouble once a minute. */
const PAUSE_MS = 60_000

class Log {
  /** @param {{ info?: Function, warn?: Function, error?: Function }} logger */
  constructor(logger, now = () => performance.now()) {
    this.logger = logger ?? console
    this.now = now
    /** @type {Map<string, { at: number, kept: number }>} */
    this.said = new Map()
  }

  info(text) {
    this.logger.info?.(`medusa-mcache: ${text}`)
  }

  warn(text) {
    this.logger.warn?.(`medusa-mcache: ${text}`)
  }

  /** Says it unless it has just been said; then tells how often it was not. */
  once(kind, text) {
    const last = this.said.get(kind)
    if (last && this.now() - last.at < PAUSE_MS) {
      last.kept += 1
      return
    }
    this.said.set(kind, { at: this.now(), kept: 0 })
    this.warn(last?.kept ? `${text} (and ${last.kept} times more since the last line about it)` : text)
  }
}

module.exports = { Log }
