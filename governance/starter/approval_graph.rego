# What needs a signature is said when the graph is built.
package clearance.graph

import rego.v1

import data.clearance.approval

require_approval contains msg if some msg in approval.require_approval
