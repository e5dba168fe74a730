// Validates KEDA resources, a JSON array on standard input, against KEDA's own schemas; prints the errors as a JSON array.
const keda = require("@kubernetes-models/keda/keda.sh/v1alpha1");

const resources = JSON.parse(require("fs").readFileSync(0, "utf8"));
const wrong = resources.flatMap((resource) => {
  try {
    new keda[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind} ${resource.metadata.name}: ${error.message}`];
  }
});
console.log(JSON.stringify(wrong));
