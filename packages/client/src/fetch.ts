/** What both SDKs take as their `fetch` option, and what browsers and Node have by that name. */
export type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>
