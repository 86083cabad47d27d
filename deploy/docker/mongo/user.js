// Run once, when the database is new: the gateways' own user, who may do nothing elsewhere.
db.getSiblingDB("dray").createUser({
  user: "dray",
  pwd: process.env.CATALOG_PASSWORD,
  roles: [{ role: "readWrite", db: "dray" }],
});
