"""What the analyst sees and Elasticsearch needs: one object a file. Installed as
`ids_dashboards`."""
