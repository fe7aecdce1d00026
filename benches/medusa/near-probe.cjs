// Loaded before a Medusa server (NODE_OPTIONS=--require): what a near cache inside Node could save at most. It keeps what Redis
// answered in a plain map, without a lease and without ever forgetting, so it is no cache, only a bound for one. Modes:
//   redis     as the package is
//   bytes     the stored bytes are at hand: no message to Redis, decompressed and parsed each time
//   text      what is parsed is at hand, decompressed
//   count     as redis, and the messages to Redis are counted, and the time spent on them and on opening values
// NEAR_PROBE_PORT answers GET /MODE with what was used since the last mode.
const http = require("node:http")
const path = require("node:path")
const zlib = require("node:zlib")
const v8 = require("node:v8")

const root = path.join(process.cwd(), "node_modules/medusa-mcache/src")
let mode = "redis"
const NOTHING = { calls: 0, rounds: 0, waitedMs: 0, opened: 0, openMs: 0 }
let used = { ...NOTHING }
/** Messages under way: one that is sent while there is none begins a round. */
let underWay = 0
let cpu = process.cpuUsage()

if (process.env.NEAR_PROBE_PORT && require("node:fs").existsSync(root)) {
  const { Server } = require(path.join(root, "wire/server"))
  const { Store } = require(path.join(root, "store"))
  const bytes = new Map()
  const texts = new Map()
  const { call } = Server.prototype
  Server.prototype.call = function probed(key, name, ...rest) {
    const isRead = name === "MCACHE.FETCH" || name === "MCACHE.GET"
    if (isRead && mode === "bytes" && bytes.has(key)) {
      return Promise.resolve(name === "MCACHE.GET" ? bytes.get(key) : [Buffer.from("hit"), bytes.get(key), null])
    }
    const began = performance.now()
    if (isRead) {
      if (underWay === 0) used.rounds += 1
      underWay += 1
    }
    const answer = call.call(this, key, name, ...rest)
    if (!isRead) return answer
    const ended = () => (underWay -= 1)
    answer.then(ended, ended)
    return answer.then((reply) => {
      used.calls += 1
      used.waitedMs += performance.now() - began
      const value = name === "MCACHE.GET" ? reply : reply?.[1]
      if (value) bytes.set(key, value)
      return reply
    })
  }
  const { get } = Store.prototype
  Store.prototype.get = function probed(key) {
    const name = this.names.key(key)
    if (mode === "text") {
      let kept = texts.get(name)
      if (!kept && bytes.has(name)) {
        const sealed = bytes.get(name)
        const payload = sealed.subarray(5)
        const plain = sealed[1] === 0 ? payload : zlib.inflateRawSync(payload)
        kept = { plain: sealed[2] === 1 ? plain.toString("utf8") : plain, isJson: sealed[2] === 1 }
        texts.set(name, kept)
      }
      if (kept) {
        this.counters.hits += 1
        return Promise.resolve(kept.isJson ? JSON.parse(kept.plain) : v8.deserialize(kept.plain))
      }
    }
    if (mode === "count" && bytes.has(name)) {
      // How long opening takes, by doing it once more.
      const sealed = bytes.get(name)
      const began = performance.now()
      const plain = sealed[1] === 0 ? sealed.subarray(5) : zlib.inflateRawSync(sealed.subarray(5))
      if (sealed[2] === 1) JSON.parse(plain.toString("utf8"))
      else v8.deserialize(plain)
      used.openMs += performance.now() - began
      used.opened += 1
    }
    return get.call(this, key)
  }
  http
    .createServer((request, response) => {
      const { user, system } = process.cpuUsage(cpu)
      response.end(JSON.stringify({ ...used, cpuMs: (user + system) / 1000 }))
      mode = request.url.slice(1)
      used = { ...NOTHING }
      cpu = process.cpuUsage()
    })
    .listen(Number(process.env.NEAR_PROBE_PORT), "127.0.0.1")
}
