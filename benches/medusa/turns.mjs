// Several servers take turns, request by request, so that other programs on the machine disturb all alike.
//   turns.mjs OUT ROUND NAME=PORT:PID[:REDISPORT] ... -- JSON      the JSON: what each visitor does (visitor.mjs)
import { fork } from "node:child_process"
import { mkdirSync } from "node:fs"

const cut = process.argv.indexOf("--")
const [out, round, ...arms] = process.argv.slice(2, cut)
const what = JSON.parse(process.argv[cut + 1])
mkdirSync(out, { recursive: true })

class Visitor {
  constructor(arm) {
    const [name, where] = arm.split("=")
    const [port, pid, redis] = where.split(":")
    const options = { ...what, arm: name, port: Number(port), pid: Number(pid), redis, out: `${out}/${name}.${round}.json` }
    this.name = name
    this.state = "busy"
    this.child = fork(new URL("./visitor.mjs", import.meta.url).pathname, [JSON.stringify(options)])
    this.child.on("message", () => this.#becomes("ready"))
    this.child.on("exit", (code) => {
      this.code = code
      this.#becomes("ended")
    })
  }

  #becomes(state) {
    this.state = state
    this.tell?.()
  }

  /** Waits until it asks for its turn, or has ended. */
  async settled() {
    while (this.state === "busy") await new Promise((resolve) => (this.tell = resolve))
  }

  async turn() {
    await this.settled()
    if (this.state === "ended") return
    this.state = "busy"
    this.child.send("go")
    await this.settled()
  }
}

const visitors = arms.map((arm) => new Visitor(arm))
for (let first = 0; visitors.some(({ state }) => state !== "ended"); first += 1) {
  for (let i = 0; i < visitors.length; i += 1) await visitors[(first + i) % visitors.length].turn()
}
const failed = visitors.filter(({ code }) => code !== 0)
if (failed.length > 0) {
  console.error(`failed: ${failed.map(({ name }) => name).join(", ")}`)
  process.exit(1)
}
