#!/bin/sh
# Two annotation rounds from photos to SQL, with simulated annotators in place of people.
#
#   sh examples/rounds.sh PHOTOS FOLDER
#
# PHOTOS holds photos with their masks as SA-1B JSON beside them, as tests/data/photos does: the simulated annotators
# have these masks in mind. FOLDER is new; the dataset, the workspace, the reports and the server's cache go there.
set -eu

photos=$1 folder=$2
dataset=$folder/dataset
mkdir "$folder"

id_of() { sed 's/.*"round_id": "\([^"]*\)".*/\1/'; }

# Photos become images; the first account of a team, before its server starts
gigamask ingest "$photos" --dataset "$dataset"
head -c 18 /dev/urandom | base64 | gigamask users add lead --role lead --dataset "$dataset"

# The server, until the script ends; it prints its address once it listens
gigamask annotate --dataset "$dataset" --team --port 0 --cache "$folder/embeddings" > "$folder/url" &
server=$!
trap 'kill $server; wait $server || true' EXIT
until [ -s "$folder/url" ]; do
    kill -0 $server
    sleep 1
done
url=$(cat "$folder/url")

# Assisted-manual: two annotators begin with empty images, and both see each of them
opened=$(gigamask round open --dataset "$dataset" --stage assisted_manual --images 3 --overlap 2 --json)
round=$(echo "$opened" | id_of)
gigamask round simulate "$round" --dataset "$dataset" --truth "$photos" --url "$url" --max-masks 4
gigamask round report "$round" --dataset "$dataset" --output "$folder/assisted_manual.html"
gigamask round close "$round" --dataset "$dataset"

# Semi-automatic: the detector prefills the other images, but leaves two in five empty, to compare
opened=$(gigamask round open --dataset "$dataset" --stage semi_automatic --prefill detector --empty-fraction 0.4 --json)
round=$(echo "$opened" | id_of)
gigamask round simulate "$round" --dataset "$dataset" --truth "$photos" --url "$url" --max-masks 4
gigamask round report "$round" --dataset "$dataset" --output "$folder/semi_automatic.html"
gigamask round report "$round" --dataset "$dataset" --json > "$folder/semi_automatic.json"
gigamask round close "$round" --dataset "$dataset"

# By SQL: seconds per mask by stage and origin, then seconds and masks per image, then agreement
gigamask query --dataset "$dataset" "
    SELECT stage, origin, simulated, count(*) AS masks, avg(active_s) AS seconds_per_mask
    FROM annotations GROUP BY stage, origin, simulated ORDER BY stage, origin"
gigamask query --dataset "$dataset" "
    SELECT stage, prefilled, count(*) AS answers, avg(seconds) AS seconds_per_image, avg(masks) AS masks_per_image
    FROM (SELECT stage, prefilled, sum(active_s + search_s) AS seconds,
                 count(*) FILTER (WHERE origin <> 'prefill_rejected') AS masks
          FROM annotations GROUP BY stage, prefilled, task_id, annotator_id)
    GROUP BY stage, prefilled ORDER BY stage, prefilled"
gigamask query --dataset "$dataset" "
    SELECT stage, count(*) AS images, avg(agreed) AS agreement, avg(iou) AS matched_iou
    FROM (SELECT stage, avg(agreed_fraction) AS agreed, avg(agreed_iou) AS iou
          FROM annotations WHERE agreed_fraction IS NOT NULL GROUP BY stage, task_id)
    GROUP BY stage"
