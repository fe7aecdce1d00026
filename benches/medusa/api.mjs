// Requests to a Medusa server, as the store and as the back office.
import http from "node:http"

export class Server {
  /** @param {string} name @param {number} port @param {string} key the publishable key of the store */
  constructor(name, port, key) {
    Object.assign(this, { name, port, key })
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
    this.token = undefined
  }

  request(method, path, body, headers = {}) {
    const payload = body === undefined ? undefined : JSON.stringify(body)
    return new Promise((resolve, reject) => {
      const request = http.request(
        {
          agent: this.agent,
          host: "127.0.0.1",
          port: this.port,
          method,
          path,
          headers: {
            ...(path.startsWith("/store") ? { "x-publishable-api-key": this.key } : {}),
            ...(path.startsWith("/admin") ? { authorization: `Bearer ${this.token}` } : {}),
            ...(payload === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
            ...headers,
          },
        },
        (response) => {
          const parts = []
          response.on("data", (part) => parts.push(part))
          response.on("end", () => {
            const text = Buffer.concat(parts).toString()
            let json
            try {
              json = JSON.parse(text)
            } catch {
              json = { text }
            }
            resolve({ status: response.statusCode, json })
          })
        },
      )
      // The server may have closed a connection that was idle, just as it was used again: then nothing was carried out.
      request.on("error", (error) => {
        if (error.code === "ECONNRESET" && request.reusedSocket) resolve(this.request(method, path, body, headers))
        else reject(error)
      })
      if (payload !== undefined) request.write(payload)
      request.end()
    })
  }

  /** As `request`, but anything other than success is an error. */
  async ok(method, path, body, headers) {
    const { status, json } = await this.request(method, path, body, headers)
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(json).slice(0, 300)}`)
    return json
  }

  get(path) {
    return this.ok("GET", path)
  }

  post(path, body = {}) {
    return this.ok("POST", path, body)
  }

  delete(path, body) {
    return this.ok("DELETE", path, body)
  }

  async login(email, password) {
    this.token = (await this.ok("POST", "/auth/user/emailpass", { email, password })).token
  }

  /** What the package counts; zeros on a server without it. */
  async stats() {
    return (await this.request("GET", "/mcache")).json?.stats ?? { hits: 0 }
  }
}

/** Random numbers that a seed gives again. */
export function randomOf(seed) {
  let state = seed >>> 0
  const next = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 4294967296)
  return { next, below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] }
}
