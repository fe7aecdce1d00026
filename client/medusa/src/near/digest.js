"use strict"
/**
 * What the feed calls a name: SipHash-2-4 of it under the server's key, as eight bytes. Words of 64 bits are pairs of
 * 32 here, low half first.
 */

/** A state of four words, in which one round is made. */
class State {
  constructor(k0, k1, k2, k3) {
    this.a = k0 ^ 0x70736575
    this.A = k1 ^ 0x736f6d65
    this.b = k2 ^ 0x6e646f6d
    this.B = k3 ^ 0x646f7261
    this.c = k0 ^ 0x6e657261
    this.C = k1 ^ 0x6c796765
    this.d = k2 ^ 0x79746573
    this.D = k3 ^ 0x74656462
  }

  round() {
    let { a, A, b, B, c, C, d, D } = this
    let low, high
    // v0 += v1; v1 = rotl(v1, 13) ^ v0; v0 = rotl(v0, 32)
    low = (a >>> 0) + (b >>> 0)
    A = (A + B + (low > 0xffffffff ? 1 : 0)) | 0
    a = low | 0
    low = (b << 13) | (B >>> 19)
    high = (B << 13) | (b >>> 19)
    b = low ^ a
    B = high ^ A
    low = a
    a = A
    A = low
    // v2 += v3; v3 = rotl(v3, 16) ^ v2
    low = (c >>> 0) + (d >>> 0)
    C = (C + D + (low > 0xffffffff ? 1 : 0)) | 0
    c = low | 0
    low = (d << 16) | (D >>> 16)
    high = (D << 16) | (d >>> 16)
    d = low ^ c
    D = high ^ C
    // v0 += v3; v3 = rotl(v3, 21) ^ v0
    low = (a >>> 0) + (d >>> 0)
    A = (A + D + (low > 0xffffffff ? 1 : 0)) | 0
    a = low | 0
    low = (d << 21) | (D >>> 11)
    high = (D << 21) | (d >>> 11)
    d = low ^ a
    D = high ^ A
    // v2 += v1; v1 = rotl(v1, 17) ^ v2; v2 = rotl(v2, 32)
    low = (c >>> 0) + (b >>> 0)
    C = (C + B + (low > 0xffffffff ? 1 : 0)) | 0
    c = low | 0
    low = (b << 17) | (B >>> 15)
    high = (B << 17) | (b >>> 15)
    b = low ^ c
    B = high ^ C
    low = c
    c = C
    C = low
    this.a = a
    this.A = A
    this.b = b
    this.B = B
    this.c = c
    this.C = C
    this.d = d
    this.D = D
  }

  take(low, high) {
    this.d ^= low
    this.D ^= high
    this.round()
    this.round()
    this.a ^= low
    this.A ^= high
  }
}

class HashKey {
  /** @param {Buffer} key sixteen bytes */
  constructor(key) {
    this.words = [0, 4, 8, 12].map((at) => key.readInt32LE(at))
  }

  /**
   * @param {string} name
   * @returns {Buffer} eight bytes, as the server says them
   */
  digest(name) {
    const bytes = Buffer.from(name, "utf8")
    const state = new State(...this.words)
    const whole = bytes.length & ~7
    for (let at = 0; at < whole; at += 8) state.take(bytes.readInt32LE(at), bytes.readInt32LE(at + 4))
    const last = Buffer.alloc(8)
    bytes.copy(last, 0, whole)
    last[7] = bytes.length & 0xff
    state.take(last.readInt32LE(0), last.readInt32LE(4))
    state.c ^= 0xff
    for (let i = 0; i < 4; i += 1) state.round()
    const digest = Buffer.alloc(8)
    digest.writeInt32LE(state.a ^ state.b ^ state.c ^ state.d, 0)
    digest.writeInt32LE(state.A ^ state.B ^ state.C ^ state.D, 4)
    return digest
  }
}

module.exports = { HashKey }
