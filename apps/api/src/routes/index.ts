import type { Config } from '@askonce/config'
import { submissionSchema } from '@askonce/intake'
import { z } from 'zod'
import type { ApiRoute } from '../route.ts'
import { eventsRoute, sdkRoutes } from '../sdk/index.ts'
import { changeRoutes } from './change-jobs.ts'
import { eraseRoute } from './erase-ledger.ts'
import { laneRoutes } from './lanes.ts'
import { attemptsRoute } from './list-attempts.ts'
import { listRoute } from './list-jobs.ts'
import { readRoutes } from './read-jobs.ts'
import { serverRoutes } from './server-state.ts'
import { spendRoute } from './spend.ts'
import { submitManyRoute } from './submit-many.ts'
import { submitRoute } from './submit.ts'
import { tenantRoutes } from './tenants.ts'

/** Every call of the HTTP surface. */
export function allRoutes(limits: Config['limits']): ApiRoute[] {
  const submission = submissionSchema(limits)
  const item = submission.extend({ key: z.string().describe('The idempotency key of this item') })
  return [
    submitRoute(submission),
    listRoute,
    ...readRoutes,
    attemptsRoute,
    eventsRoute,
    ...changeRoutes,
    submitManyRoute(z.strictObject({ jobs: z.array(item) })),
    spendRoute,
    eraseRoute,
    ...laneRoutes,
    ...tenantRoutes,
    ...sdkRoutes(limits),
    ...serverRoutes,
  ]
}
