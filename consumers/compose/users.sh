#!/bin/sh
# Elasticsearch's users, as often as it is run: Kibana's own, and the one that writes our documents and no others.
# Passwords are letters, digits, - and _ only.
set -eu
URL=${URL:-http://elasticsearch:9200}

put() {
  printf 'user = "elastic:%s"\n' "$ELASTIC_PASSWORD" |
    curl -fsS -K - -o /dev/null -X "$1" -H 'Content-Type: application/json' "$URL/_security/$2" -d "$3"
}

put POST user/kibana_system/_password "{\"password\": \"$KIBANA_PASSWORD\"}"
put PUT role/ids_plugin_writer '{
  "cluster": ["monitor"],
  "indices": [{
    "names": ["logs-ids_plugin.*", "metrics-ids_plugin.*"],
    "privileges": ["create_doc", "auto_configure", "read", "view_index_metadata", "delete"]
  }]
}'
put PUT user/ids_plugin "{\"password\": \"$IDS_PASSWORD\", \"roles\": [\"ids_plugin_writer\"]}"
echo "users: elastic, kibana_system, ids_plugin"
