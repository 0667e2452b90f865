import type { Reporter } from 'knip'

/** A knip reporter that says how many files were looked at, so that "nothing found" can be told from "nothing read". */
const report: Reporter = ({ counters }) => {
  console.log(`knip looked at ${counters.total} files`)
}

export default report
