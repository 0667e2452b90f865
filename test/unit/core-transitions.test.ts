import {
  isSettled,
  isTerminal,
  isTransition,
  jobStates,
  renderTransitions,
  terminalStates,
  transitions,
  type JobState,
} from '@askonce/core'
import { describe, expect, it } from 'vitest'

/** States that lead on from `from`, with the arrows of the given events only. */
function reachable(from: JobState | null, events: (event: string) => boolean = () => true): Set<JobState> {
  const found = new Set<JobState>()
  const look = (state: JobState | null): void => {
    for (const { event, from: sources, to } of transitions) {
      if (!events(event) || !sources.includes(state) || found.has(to)) continue
      found.add(to)
      look(to)
    }
  }
  look(from)
  return found
}

describe('the transition table', () => {
  it('reaches every state from a new key, and says each event once', () => {
    expect([...reachable(null)].toSorted()).toEqual([...jobStates].toSorted())
    const events = transitions.map(({ event }) => event)
    expect(new Set(events).size).toBe(events.length)
  })

  it('holds exactly the arrows of the design', () => {
    const arrows = transitions.flatMap(({ from, to }) => from.map((source) => `${source ?? 'new'} → ${to}`))
    expect([...new Set(arrows)].toSorted()).toEqual(
      [
        'new → queued',
        'queued → running',
        'running → queued',
        'running → succeeded',
        'running → failed',
        'running → uncertain',
        'queued → failed',
        'uncertain → failed',
        'queued → cancelled',
        'running → cancelled',
        'uncertain → cancelled',
        'failed → queued',
        'cancelled → queued',
        'uncertain → queued',
        'queued → succeeded',
        'failed → succeeded',
        'uncertain → succeeded',
      ].toSorted(),
    )
  })

  it('has no way out of succeeded, and out of the other ends only on request or by a late success', () => {
    expect(reachable('succeeded').size).toBe(0)
    for (const state of terminalStates) {
      const events = transitions.filter(({ from }) => from.includes(state)).map(({ event }) => event)
      for (const event of events) expect(['resubmit', 'retry', 'answer']).toContain(event)
    }
  })

  it('lets every unfinished job end, without anybody asking', () => {
    const asked = new Set(['submit', 'resubmit', 'retry', 'cancel'])
    for (const state of jobStates.filter((name) => !isTerminal(name))) {
      const ends = [...reachable(state, (event) => !asked.has(event))].filter((name) => isTerminal(name))
      expect(ends, state).not.toEqual([])
    }
  })

  it('answers isTransition by the table', () => {
    for (const from of [null, ...jobStates]) {
      for (const to of jobStates) {
        const listed = transitions.some((arrow) => arrow.to === to && arrow.from.includes(from))
        expect(isTransition(from, to), `${from} → ${to}`).toBe(listed)
      }
    }
    expect(isTransition('succeeded', 'queued')).toBe(false)
    expect(isTransition('uncertain', 'queued')).toBe(true)
  })

  it('is rendered with one row per event', () => {
    const lines = renderTransitions().split('\n')
    expect(lines).toHaveLength(transitions.length + 2)
    expect(lines[2]).toContain('| submit | (no row) | queued |')
    for (const line of lines) expect(line.split('|')).toHaveLength(6)
  })
})

describe('kinds of states', () => {
  it('a terminal job is settled, and so is a held one', () => {
    expect(jobStates.filter((state) => isTerminal(state))).toEqual(['succeeded', 'failed', 'cancelled'])
    expect(jobStates.filter((state) => isSettled(state))).toEqual(['succeeded', 'failed', 'uncertain', 'cancelled'])
  })
})
