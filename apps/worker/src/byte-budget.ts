interface Waiting {
  bytes: number
  enter: () => void
}

/** Lets callers in, first come first served, while the bytes that they bring fit. One that never fits goes alone. */
export class ByteBudget {
  private readonly total: number
  private used = 0
  private line: Waiting[] = []

  constructor(total: number) {
    this.total = total
  }

  /** Runs `work` when its turn has come. */
  async with<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    const taken = Math.min(bytes, this.total)
    await this.enter(taken)
    try {
      return await work()
    } finally {
      this.used -= taken
      this.admit()
    }
  }

  private enter(bytes: number): Promise<void> {
    return new Promise((enter) => {
      this.line.push({ bytes, enter })
      this.admit()
    })
  }

  private admit(): void {
    for (let next = this.line[0]; next !== undefined && this.used + next.bytes <= this.total; next = this.line[0]) {
      this.line.shift()
      this.used += next.bytes
      next.enter()
    }
  }
}
