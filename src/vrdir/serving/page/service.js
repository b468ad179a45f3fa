// The HTTP side of the page: each call returns a result, or throws a ServiceError with words.

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Service {
  /** @param {() => string} key returns the API key, or "". */
  constructor(key) {
    this.key = key;
  }

  weights() {
    return this.#json("v1/weights");
  }

  limits() {
    return this.#json("v1/limits");
  }

  detect(blob) {
    return this.#json("v1/detect", { method: "POST", body: blob });
  }

  /** Return an address with a token, if there is a key: a browser sends none with videos. */
  async withToken(address) {
    if (!this.key()) return address;
    let token;
    try {
      ({ token } = await this.#json("v1/tokens", { method: "POST" }));
    } catch (error) {
      if (error.status === 501) return address; // the service has no keys
      throw error;
    }
    return `${address}${address.includes("?") ? "&" : "?"}token=${token}`;
  }

  /** Restore a file. `maxSide` 0 or none keeps the size; `accept` none keeps the format. */
  async restore(file, { strength = "1", only = [], none = false, weights = "", maxSide = 0, accept = null, signal = null } = {}) {
    const query = new URLSearchParams({ strength: none ? "0" : strength });
    only.forEach((name) => query.append("only", name));
    if (weights) query.set("weights", weights);
    if (maxSide) query.set("max_side", String(maxSide));
    const answer = await this.#call(`v1/restore?${query}`, {
      method: "POST", body: file, signal, headers: accept ? { Accept: accept } : { Accept: "image/*" },
    });
    const figure = (name) => {
      const text = answer.headers.get(`Vrdir-${name}`);
      return text === null ? null : Number(text);
    };
    const shares = Object.fromEntries(
      (answer.headers.get("Vrdir-Shares") ?? "").split(", ").filter(Boolean)
        .map((part) => part.split("=")).map(([name, share]) => [name, Number(share)]),
    );
    return {
      blob: await answer.blob(),
      diagnosis: { haze: figure("Haze"), noise: figure("Noise"), rain: figure("Rain"), changed: figure("Changed") },
      shares,
    };
  }

  /** A picture that browsers show, of a format that they may not: strength 0 leaves it as it was. */
  async asJpeg(file, maxSide) {
    return (await this.restore(file, { strength: "0", maxSide, accept: "image/jpeg" })).blob;
  }

  async #json(address, init = {}) {
    return (await this.#call(address, init)).json();
  }

  async #call(address, init) {
    const headers = new Headers(init.headers ?? {});
    if (this.key()) headers.set("Authorization", `Bearer ${this.key()}`);
    let answer;
    try {
      answer = await fetch(address, { ...init, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The service does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    const again = answer.headers.get("Retry-After");
    const words = [problem.title ?? `The service answered ${answer.status}`, problem.detail].filter(Boolean).join(": ");
    throw new ServiceError(answer.status, words + (again ? ` (try again in ${again} s)` : "") + ".");
  }
}
