-- The sync trigger as it was written by hand, before the table had a project_id.
CREATE OR REPLACE FUNCTION table_sync_function_0992e728d3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM merge_request_diff_commits_b5377a7a34
        WHERE merge_request_diff_id = OLD.merge_request_diff_id AND relative_order = OLD.relative_order;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE merge_request_diff_commits_b5377a7a34
        SET authored_date = NEW.authored_date, committed_date = NEW.committed_date, sha = NEW.sha,
            message = NEW.message, trailers = NEW.trailers, commit_author_id = NEW.commit_author_id,
            committer_id = NEW.committer_id
        WHERE merge_request_diff_id = NEW.merge_request_diff_id AND relative_order = NEW.relative_order;
    ELSE
        INSERT INTO merge_request_diff_commits_b5377a7a34
            (authored_date, committed_date, merge_request_diff_id, relative_order, sha, message, trailers,
             commit_author_id, committer_id)
        VALUES
            (NEW.authored_date, NEW.committed_date, NEW.merge_request_diff_id, NEW.relative_order, NEW.sha,
             NEW.message, NEW.trailers, NEW.commit_author_id, NEW.committer_id);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER table_sync_trigger_57c8465cd7
AFTER INSERT OR UPDATE OR DELETE ON merge_request_diff_commits
FOR EACH ROW EXECUTE FUNCTION table_sync_function_0992e728d3();
