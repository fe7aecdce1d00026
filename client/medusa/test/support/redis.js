"use strict"
/** Redis servers of one's own for tests, in temporary folders, on free ports, gone when the test ends. */
const { spawn, spawnSync } = require("node:child_process")
const fs = require("node:fs")
const net = require("node:net")
const os = require("node:os")
const path = require("node:path")
const Redis = require("ioredis")
const { until } = require("./until")

const MODULE = process.env.MCACHE_SO ?? path.resolve(__dirname, "../../../../target/release/libmcache.so")
/** See provider.js. */
const FEED = process.env.MCACHE_TEST_NEAR ? ["--mcache.feed", "yes"] : []
const SERVER = process.env.MCACHE_REDIS_SERVER ?? "redis-server"

const running = new Set()
process.on("exit", () => {
  for (const server of running) server.process?.kill("SIGKILL")
})

async function freePort() {
  const listener = net.createServer()
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve))
  const { port } = listener.address()
  await new Promise((resolve) => listener.close(resolve))
  return port
}

class TestRedis {
  constructor(port, dir, args) {
    this.port = port
    this.dir = dir
    this.args = args
    this.url = `redis://127.0.0.1:${port}/0`
  }

  /** A running server. `module: false` leaves the module out; `args` are added to the command line. */
  static async start(t, { module = true, args = [], port = undefined } = {}) {
    if (module && !fs.existsSync(MODULE)) throw new Error(`${MODULE} is missing: run \`make build\` first`)
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), "medusa-mcache-"))
    // Another process may take a free port before this one does.
    for (let attempt = 1; ; attempt += 1) {
      const server = new TestRedis(port ?? (await freePort()), dir, [...(module ? ["--loadmodule", MODULE, ...FEED] : []), ...args])
      try {
        await server.run()
        t.after(async () => {
          await server.kill()
          fs.rmSync(dir, { recursive: true, force: true })
        })
        return server
      } catch (error) {
        if (attempt === 5) throw error
      }
    }
  }

  /** Starts the process; for restarting after `kill` or `shutdown`. */
  async run() {
    const { port, dir } = this
    const log = path.join(dir, "log")
    const base = ["--port", port, "--bind", "127.0.0.1", "--dir", dir, "--logfile", log, "--save", "", "--appendonly", "no"]
    this.process = spawn(SERVER, [...base, ...this.args].map(String), { stdio: "ignore" })
    running.add(this)
    let ended = false
    this.ended = new Promise((resolve) => this.process.once("exit", resolve)).then(() => (ended = true))
    await until(`redis-server answers on ${port}`, async () => {
      if (ended) throw Object.assign(new Error(`redis-server ended:\n${fs.readFileSync(log, "utf8").slice(-2000)}`), { final: true })
      return ["PONG", "NOAUTH Authentication required."].includes(await this.ask("PING").catch((error) => error.message))
    })
  }

  /** A command over a connection of its own. */
  async ask(...command) {
    const client = new Redis(this.port, "127.0.0.1", { lazyConnect: true, enableReadyCheck: false, retryStrategy: null })
    client.on("error", () => {})
    try {
      await client.connect()
      return await client.call(...command)
    } finally {
      client.disconnect()
    }
  }

  /** How often each command was called, as INFO says. */
  async calls(name) {
    const info = await this.ask("INFO", "commandstats")
    return Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`, "i").exec(info)?.[1] ?? 0)
  }

  pause() {
    this.process.kill("SIGSTOP")
  }

  resume() {
    this.process.kill("SIGCONT")
  }

  async kill() {
    running.delete(this)
    this.process.kill("SIGKILL")
    await this.ended
  }
}

/** A cluster of so many primaries; `args` are added to each command line. */
async function startCluster(t, count = 3, args = []) {
  const nodes = []
  for (let i = 0; i < count; i += 1) {
    const bus = await freePort()
    nodes.push(await TestRedis.start(t, { args: ["--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000", ...args] }))
  }
  const where = nodes.map((node) => `127.0.0.1:${node.port}`)
  const made = spawnSync("redis-cli", ["--cluster", "create", ...where, "--cluster-yes"], { encoding: "utf8" })
  if (made.status !== 0) throw new Error(made.stdout + made.stderr)
  for (const node of nodes) {
    await until("the cluster is complete", async () => (await node.ask("CLUSTER", "INFO")).includes("cluster_state:ok"))
  }
  return nodes
}

/** A Sentinel that watches a primary under the name `shop`. */
async function startSentinel(t, primary) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "medusa-mcache-sentinel-"))
  const port = await freePort()
  const file = path.join(dir, "sentinel.conf")
  fs.writeFileSync(
    file,
    [
      `port ${port}`,
      `dir ${dir}`,
      `logfile ${path.join(dir, "log")}`,
      `sentinel monitor shop 127.0.0.1 ${primary.port} 1`,
      "sentinel down-after-milliseconds shop 500",
      "sentinel failover-timeout shop 3000",
    ].join("\n"),
  )
  const child = spawn(SERVER, [file, "--sentinel"], { stdio: "ignore" })
  const entry = { process: child }
  running.add(entry)
  const ended = new Promise((resolve) => child.once("exit", resolve))
  t.after(async () => {
    running.delete(entry)
    child.kill("SIGKILL")
    await ended
    fs.rmSync(dir, { recursive: true, force: true })
  })
  const sentinel = new TestRedis(port, dir, [])
  await until("the Sentinel answers", async () => (await sentinel.ask("PING").catch(() => "")) === "PONG")
  return sentinel
}

module.exports = { TestRedis, startCluster, startSentinel, freePort, MODULE }
