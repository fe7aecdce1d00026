"use strict"
/**
 * What is put before every key and tag, so that shops sharing a Redis do not see each other. The Rust client writes the
 * same names for a namespace `mc`.
 */
class Names {
  /** @param {string} prefix for example `mc:` */
  constructor(prefix) {
    this.prefix = prefix
    /** Every entry carries this tag, so that clearing all of them is one command. */
    this.everything = `${prefix}*`
  }

  key(key) {
    return this.prefix + key
  }

  tag(tag) {
    return this.prefix + tag
  }

  /** The tags an entry is stored with. */
  stored(tags) {
    const all = []
    for (const tag of tags ?? []) if (tag !== "" && tag !== "*") all.push(this.prefix + tag)
    all.push(this.everything)
    return all
  }

  /** A key as the server names it, as the shop names it. */
  strip(key) {
    return key.startsWith(this.prefix) ? key.slice(this.prefix.length) : key
  }
}

/** Tags as a list. In JavaScript a single one comes as a text, which would be taken for the list of its letters. */
function listed(tags) {
  return typeof tags === "string" ? [tags] : tags
}

module.exports = { Names, listed }
